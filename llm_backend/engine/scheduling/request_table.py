"""Request table of a worker: all its requests, and which of them wait for a grammar or a slot."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from llm_backend.engine.command_refused import check_queue
from llm_backend.engine.messages import Generate, LoadModel, Priority, ScoreLabels
from llm_backend.engine.messages.address import Address
from llm_backend.engine.model import Model
from llm_backend.engine.output.output_builder import OutputBuilder
from llm_backend.engine.sampling.constraint import CompiledGrammar, Grammars
from llm_backend.engine.scheduling.command_validation import CommandLimits, ValidatedPrompt
from llm_backend.engine.scheduling.generated_tokens import GeneratedTokens
from llm_backend.engine.scheduling.generation_request import GenerationRequest
from llm_backend.engine.scheduling.grammar_compilation import GrammarCompilation
from llm_backend.engine.scheduling.scoring_request import ScoringRequest
from llm_backend.engine.scheduling.scoring_validation import ValidatedScoring, validate_scoring
from llm_backend.engine.sequence import Sequence
from llm_backend.engine.speculation.prompt_lookup import SharedPromptLookup

ValidatedCommand = ValidatedPrompt | ValidatedScoring
EngineRequest = GenerationRequest | ScoringRequest


@dataclass(frozen=True, kw_only=True)
class _QueueLimit:
    limit: int
    deadline_s: float


class QueueLimits:
    """Limit and deadline of each priority's queue. Interactive requests are accepted although the
    batch queue is full."""

    def __init__(self, queues: dict[Priority, _QueueLimit]) -> None:
        self._queues = queues

    @classmethod
    def of(cls, config: LoadModel) -> Self:
        """Returns the limits that a `LoadModel` command sets."""
        interactive = _QueueLimit(limit=config.queue_limit, deadline_s=config.queue_deadline_s)
        batch = _QueueLimit(
            limit=config.batch_queue_limit, deadline_s=config.batch_queue_deadline_s
        )
        return cls({Priority.INTERACTIVE: interactive, Priority.BATCH: batch})

    def limit(self, priority: Priority) -> int:
        """Returns the number of requests of this priority that may wait."""
        return self._queues[priority].limit

    def exceeded_deadline_s(
        self, arrived_at: float, priority: Priority, now: float
    ) -> float | None:
        """Returns the deadline in seconds that a waiting request has exceeded; None if it has
        not."""
        deadline_s = self._queues[priority].deadline_s
        return deadline_s if now - arrived_at > deadline_s else None


class RequestTable:
    """All requests from `add` to `remove`."""

    def __init__(self, model: Model, config: LoadModel) -> None:
        self._model = model
        self._command_limits = CommandLimits.of(
            config, context_tokens=model.context_tokens, batch_tokens=model.batch_tokens
        )
        self._generated_tokens = (
            GeneratedTokens(model.vocabulary, config.generated_tokens_bytes)
            if config.generated_tokens_bytes
            else None
        )
        self._queue_limits = QueueLimits.of(config)
        self.grammars = Grammars(model.vocabulary, config.grammars)
        self._compiling = GrammarCompilation(self.grammars)
        self._labels_limit = config.labels_limit
        # paths of a scoring computed together: several are faster only in unified cells
        self._scoring_width = model.slots if config.kv_unified else 1
        self._requests: dict[Address, EngineRequest] = {}

    def __getitem__(self, address: Address) -> EngineRequest:
        return self._requests[address]

    def __iter__(self) -> Iterator[Address]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def is_compiling(self) -> bool:
        """True if a request waits for a grammar."""
        return not self._compiling.is_empty

    @property
    def has_interactive(self) -> bool:
        """True if there is an interactive request."""
        return any(one.priority is Priority.INTERACTIVE for one in self._requests.values())

    @property
    def waiting(self) -> list[EngineRequest]:
        """Requests without a slot so far, whether their grammar is ready or not."""
        return [request for request in self._requests.values() if not request.has_started]

    def validate(self, command: Generate | ScoreLabels) -> ValidatedCommand:
        """Tokenizes and checks a command. Does not change the table, so that another thread may
        call it. Raises `CommandRefused`."""
        vocabulary, projector = self._model.vocabulary, self._model.projector
        if isinstance(command, Generate):
            return self._command_limits.validate(
                command, vocabulary, projector, self._generated_tokens
            )
        return validate_scoring(
            command, self._command_limits, self._labels_limit, vocabulary, projector
        )

    def add(
        self,
        address: Address,
        command: Generate | ScoreLabels,
        now: float,
        *,
        free_slots: int,
        validated: ValidatedCommand | None = None,
    ) -> EngineRequest | None:
        """Adds a new request. Returns it if it only needs a slot, None if its grammar has to be
        compiled first. Raises `CommandRefused`."""
        if isinstance(command, ScoreLabels):
            self.check_queue(command.priority, free_slots=free_slots)
        prompt = self.validate(command) if validated is None else validated
        if isinstance(command, ScoreLabels):
            assert isinstance(prompt, ValidatedScoring), "it was validated as a scoring"
            return self._add_scoring(address, command, prompt, now)
        assert isinstance(prompt, ValidatedPrompt), "it was validated as a prompt"
        if command.grammar is not None or command.max_tokens != 0 or command.echo:
            self.check_queue(command.priority, free_slots=free_slots)  # before the work below
        answers = self._build_answers(address, command, prompt, now)
        request = GenerationRequest(address, command, answers, now, prompt.tokenization)
        self._requests[address] = request
        if command.grammar is None:
            return request
        self._compiling.add(request, command.grammar)
        return None

    def check_queue(self, priority: Priority, *, free_slots: int, additional: int = 0) -> None:
        """Raises `CommandRefused` if the queue of a priority is full, counting `additional`
        requests that are not in the table."""
        waiting = additional + sum(request.priority is priority for request in self.waiting)
        check_queue(waiting, self._queue_limits.limit(priority), free_slots=free_slots)

    def remove(self, address: Address) -> EngineRequest | None:
        """Removes and returns a request, and ends its wait for a grammar; None if it was removed
        before."""
        request = self._requests.pop(address, None)
        if isinstance(request, GenerationRequest):
            self._compiling.remove(request)
        return request

    def remember_answer(self, request: EngineRequest, sequence: Sequence) -> None:
        """Stores the tokens of a chat whose first answer has ended, except if a grammar or sampling
        options have steered them: a client could thereby choose tokens of other clients'
        prompts."""
        if self._generated_tokens is None or not isinstance(request, GenerationRequest):
            return
        is_steered = request.command.grammar is not None or request.command.sampling.is_steered
        is_whole = sequence.context_tokens is None  # nothing can have been dropped
        if sequence.index == 0 and request.tokenization is not None and is_whole and not is_steered:
            answer = sequence.tokens[sequence.prompt_tokens :]
            self._generated_tokens.add(request.tokenization, answer)

    def wait(self, seconds: float) -> None:
        """Waits until a grammar is ready, at most `seconds`."""
        self._compiling.wait(seconds)

    def pop_compiled(self) -> list[tuple[GenerationRequest, Future[CompiledGrammar]]]:
        """Removes and returns the requests whose grammar compilation has ended, in success or in
        an error."""
        return self._compiling.pop_ready()

    def find_expired(self, now: float, *, can_admit: bool) -> list[tuple[EngineRequest, str]]:
        """Returns the requests that have exceeded their queue deadline, each with the message of
        its failure. If the scheduler `can_admit` sequences, a request waits for a prefix that
        another one computes, and would fail for nothing: it only expires while its grammar is
        compiled."""
        expired = []
        for request in self.waiting:
            deadline_s = self._queue_limits.exceeded_deadline_s(
                request.arrived_at, request.priority, now
            )
            is_compiling = request in self._compiling
            if deadline_s is not None and (is_compiling or not can_admit):
                missing = "Its grammar was not ready" if is_compiling else "No slot became free"
                expired.append((request, f"{missing} within {deadline_s:g} seconds; try later."))
        return expired

    def _add_scoring(
        self, address: Address, command: ScoreLabels, prompt: ValidatedScoring, now: float
    ) -> ScoringRequest:
        request = ScoringRequest(
            address,
            command,
            prompt,
            now,
            width=self._scoring_width,
            can_roll_back=self._model.can_roll_back,
        )
        self._requests[address] = request
        return request

    def _build_answers(
        self, address: Address, command: Generate, prompt: ValidatedPrompt, now: float
    ) -> list[OutputBuilder]:
        sequences = [
            Sequence(
                request=address,
                index=index,
                tokens=list(prompt.tokens),
                runs=prompt.runs,
                max_length=prompt.max_length,
                context_tokens=prompt.context_tokens,
                n_keep=prompt.n_keep,
                arrived_at=now,
                priority=command.priority,
                logits_from=0 if command.echo and command.sampling.logprobs is not None else None,
            )
            for index in range(command.answer_count)
        ]
        vocabulary = self._model.vocabulary
        lookup = SharedPromptLookup(command.answer_count)
        return [
            OutputBuilder(command, one, vocabulary, prompt.prediction, lookup) for one in sequences
        ]
