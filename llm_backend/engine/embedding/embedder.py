"""Engine of embedding and reranking models: answers `Embed` commands with vectors, `Rank` commands
with scores; the inputs of all requests share the passes."""

from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.command_refused import CommandRefused, check_queue, unsupported_command
from llm_backend.engine.embedding.pair_tokenizer import PairTokenizer
from llm_backend.engine.messages import (
    ComputedCommand,
    Embed,
    Embedded,
    Failure,
    LoadModel,
    ModelKind,
    Rank,
    RankScores,
    SlotAssigned,
    Status,
)
from llm_backend.engine.messages.address import Address, Publish
from llm_backend.engine.messages.framing import MESSAGE_DATA_LIMIT_BYTES
from llm_backend.engine.model import Model
from llm_backend.engine.scheduling.command_validation import check_tokens, count_if_far_too_long
from llm_backend.engine.worker_engine import WorkerEngine

_Results = NDArray[np.float32] | NDArray[np.float64]


class _Request:
    """A command: its inputs as tokens, and the results of the inputs that are computed."""

    def __init__(self, address: Address, inputs: list[list[int]], arrived_at: float) -> None:
        self.address = address
        self.inputs = inputs
        self.arrived_at = arrived_at
        self.started = 0  # number of inputs that have been in a pass
        self.results: list[_Results] = []

    @property
    def tokens(self) -> int:
        return sum(map(len, self.inputs))

    @property
    def is_finished(self) -> bool:
        return len(self.results) == len(self.inputs)


class Embedder(WorkerEngine):
    """Owns all requests between `submit` and their last event. Each pass takes one input of each
    request in turn, while they fit, so that a long list does not block a short one."""

    def __init__(self, model: Model, config: LoadModel, publish: Publish) -> None:
        super().__init__(config, publish)
        self._model = model
        self._requests: dict[Address, _Request] = {}
        self._round_robin: deque[_Request] = deque()
        self._pairs = PairTokenizer(model.vocabulary, model.rerank_template)
        self.answer_bytes = MESSAGE_DATA_LIMIT_BYTES

    @property
    def is_idle(self) -> bool:
        """True if a step would have nothing to do."""
        return not self._requests

    @property
    def addresses(self) -> Iterable[Address]:
        """Addresses of all requests."""
        return self._requests

    def status(self, name: str) -> Status:
        """Status of the engine, as the answer to the probe `name`."""
        waiting = sum(not request.started for request in self._requests.values())
        return self._status(name, running=len(self._requests) - waiting, waiting=waiting)

    def submit(self, address: Address, command: ComputedCommand, now: float) -> None:
        """Queues a command. Raises `CommandRefused`."""
        check_queue(len(self._requests), self._config.queue_limit, free_slots=self._model.slots)
        inputs = self._inputs(command)
        request = _Request(address, inputs, now)
        self._requests[address] = request
        self._round_robin.append(request)

    def cancel(self, address: Address) -> None:
        """Removes a request."""
        request = self._requests.pop(address, None)
        if request is not None and request in self._round_robin:
            self._round_robin.remove(request)

    def step(self, now: float) -> None:
        """Plans a pass, computes it, and publishes finished answers."""
        self._expire(now)
        pass_ = self._plan()
        if not pass_:
            return
        results = self._compute([tokens for _, tokens in pass_])
        self.statistics.count(sequences=len(pass_), tokens=sum(len(tokens) for _, tokens in pass_))
        for (request, _), result in zip(pass_, results, strict=True):
            request.results.append(result)
            if request.is_finished:
                self._finish(request)

    def abort(self, message: str) -> None:
        """Fails the requests of a step that raised an error."""
        begun = [request for request in self._requests.values() if request.started]
        for request in begun or list(self._requests.values()):
            self._fail(request.address, Failure.INTERNAL, message)

    def _inputs(self, command: ComputedCommand) -> list[list[int]]:
        match command:
            case Embed() if self._model.kind is ModelKind.EMBEDDING:
                self._check_count(len(command.inputs), "inputs")
                return [self._tokenize(value) for value in command.inputs]
            case Rank() if self._model.kind is ModelKind.RERANK:
                self._check_count(len(command.documents), "documents")
                return self._tokenize_pairs(command)
        raise unsupported_command(self._model.kind, command)

    def _check_count(self, count: int, field: str) -> None:
        limit = self._config.inputs_limit
        if not 1 <= count <= limit:
            raise CommandRefused(Failure.INVALID, f"There must be 1 to {limit} {field}.", field)

    def _check_length(self, text: str, field: str) -> None:
        """Raises `CommandRefused` for a text that is far too long, before all of it is
        tokenized."""
        lower_bound = count_if_far_too_long(
            self._input_limit, text, self._model.vocabulary, parse_special=False
        )
        if lower_bound is not None:
            message = (
                f"This model takes {self._input_limit} tokens; {field} has more than {lower_bound}."
            )
            raise CommandRefused(Failure.CONTEXT_LENGTH, message, field)

    @property
    def _input_limit(self) -> int:
        """Maximum number of tokens of an input."""
        return min(self._model.context_tokens, self._model.batch_tokens)

    def _tokenize_pairs(self, command: Rank) -> list[list[int]]:
        self._check_length(command.query, "query")
        for index, document in enumerate(command.documents):
            self._check_length(document, f"documents[{index}]")
        pairs: list[list[int]] = []
        for tokens in self._pairs.tokens(command.query, command.documents):
            self._check_pair(tokens, f"documents[{len(pairs)}]")
            pairs.append(tokens)
        return pairs

    def _check_pair(self, tokens: list[int], field: str) -> None:
        if not tokens:
            raise CommandRefused(Failure.INVALID, f"The query and {field} have no tokens.", field)
        if len(tokens) > self._input_limit:
            raise CommandRefused(
                Failure.CONTEXT_LENGTH,
                f"This model takes {self._input_limit} tokens; the query and {field} together have "
                f"{len(tokens)}. Shorten them.",
                field,
            )

    def _tokenize(self, value: str | list[int]) -> list[int]:
        vocabulary = self._model.vocabulary
        limit = self._input_limit
        if isinstance(value, str):
            self._check_length(value, "inputs")
            tokens = vocabulary.tokenize(value, parse_special=False, add_special=True)
        else:
            tokens = list(value)
            check_tokens(tokens, vocabulary.size, "inputs")
        if not tokens:
            raise CommandRefused(Failure.INVALID, "An input has no tokens.", "inputs")
        if len(tokens) > limit:
            raise CommandRefused(
                Failure.CONTEXT_LENGTH,
                f"This model takes {limit} tokens; an input has {len(tokens)}. Shorten it.",
                "inputs",
            )
        return tokens

    def _plan(self) -> list[tuple[_Request, list[int]]]:
        capacity = self._model.batch_tokens
        planned: list[tuple[_Request, list[int]]] = []
        while self._round_robin and len(planned) < self._model.slots:
            request = self._round_robin[0]
            tokens = request.inputs[request.started]
            if len(tokens) > capacity:
                break
            capacity -= len(tokens)
            if not request.started:
                event = SlotAssigned(id=request.address.id, prompt_tokens=request.tokens)
                self._publish(request.address, event)
            request.started += 1
            planned.append((request, tokens))
            self._round_robin.popleft()
            if request.started < len(request.inputs):
                self._round_robin.append(request)
        return planned

    def _expire(self, now: float) -> None:
        deadline_s = self._config.queue_deadline_s
        waiting = [request for request in self._round_robin if not request.started]
        for request in waiting:
            if now - request.arrived_at > deadline_s:
                message = f"No pass was free within {deadline_s:g} seconds; try later."
                self._fail(request.address, Failure.QUEUE_DEADLINE, message)

    def _compute(self, inputs: list[list[int]]) -> _Results:
        if self._model.kind is ModelKind.RERANK:
            return self._model.rank(inputs)
        return self._model.embed(inputs)

    def _finish(self, request: _Request) -> None:
        answer = self._answer(request)
        if isinstance(answer, Embedded) and len(answer.vectors) > self.answer_bytes:
            vectors = f"The vectors of {len(request.inputs)} inputs"
            message = f"{vectors} exceed the size limit of one answer. Send fewer."
            self._fail(request.address, Failure.INVALID, message, "inputs")
            return
        del self._requests[request.address]
        self._publish(request.address, answer)

    def _answer(self, request: _Request) -> Embedded | RankScores:
        name, tokens = request.address.id, request.tokens
        results = np.stack(request.results)
        if self._model.kind is ModelKind.RERANK:
            return RankScores(id=name, scores=results.tolist(), prompt_tokens=tokens)
        return Embedded(
            id=name,
            vectors=results.astype("<f4").tobytes(),
            embedding_size=results.shape[1],
            prompt_tokens=tokens,
        )
