"""Text generation: `Generate` commands in, deltas out, one forward pass for all of them a turn."""

from concurrent.futures import Future, wait
from dataclasses import asdict

import msgspec
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.address import Address, Publish
from llm_backend.engine.admission import Bounds, Refused, answers_wanted
from llm_backend.engine.answer import Answer
from llm_backend.engine.cache import Cache
from llm_backend.engine.constraint import CompiledGrammar, GrammarError, Grammars
from llm_backend.engine.messages import (
    Accepted,
    Delta,
    Embed,
    Failed,
    Failure,
    Generate,
    ModelKind,
    Rank,
    Start,
    Status,
)
from llm_backend.engine.model import Model, NoRoom
from llm_backend.engine.refusal import unsupported
from llm_backend.engine.sampling import NoChoice, Row
from llm_backend.engine.scheduler import Admitted, Scheduler, Work
from llm_backend.engine.sequence import Sequence
from llm_backend.engine.speculation import Speculation
from llm_backend.engine.statistics import Statistics

__all__ = ["Generator"]

_COMPILING_S = 0.002  # how long to wait for a grammar before looking for commands again
_COPY_SHARE = 128  # copying a slot costs about as much as computing this part of a context


class _Request:
    """A command and its answers."""

    def __init__(self, address: Address, command: Generate, answers: list[Answer]) -> None:
        self.address = address
        self.command = command
        self.answers = answers
        self.is_accepted = False

    @property
    def is_finished(self) -> bool:
        return all(answer.is_finished for answer in self.answers)

    def best(self) -> list[Delta]:
        """The answers that were held back: the best `n`, best first, numbered anew."""
        ranked = sorted(self.answers, key=lambda answer: -answer.quality)
        deltas = [answer.held for answer in ranked[: self.command.n] if answer.held is not None]
        return [msgspec.structs.replace(delta, index=index) for index, delta in enumerate(deltas)]


class Generator:
    """Owns all requests between `submit` and their last event."""

    def __init__(self, model: Model, start: Start, publish: Publish) -> None:
        self._model = model
        self._bounds = Bounds.of(start, model.context_tokens)
        self._queue_limit = start.queue_limit
        self._queue_deadline_s = start.queue_deadline_s
        self._publish = publish
        self.statistics = Statistics()
        cache = Cache(
            slots=model.slots,
            worth_copying=model.context_tokens // _COPY_SHARE,
            can_roll_back=model.can_roll_back,
            prefers_neighbours=not start.unified_cells,
        )
        self._scheduler = Scheduler(
            cache=cache, batch_tokens=model.batch_tokens, logit_rows=start.logit_rows
        )
        self._draft_tokens = start.draft_tokens if model.can_roll_back else 0
        self._speculation = Speculation(start.draft_tokens)
        self._has_room = True  # cells have not just run out
        self._grammars = Grammars(model.vocabulary, start.grammars)
        self._compiling: dict[_Request, Future[CompiledGrammar]] = {}
        self._requests: dict[Address, _Request] = {}
        self._answers: dict[Sequence, Answer] = {}  # those not finished

    @property
    def is_idle(self) -> bool:
        """Whether a turn would have nothing to do."""
        return self._scheduler.is_idle and not self._compiling

    def status(self, name: str) -> Status:
        """What is going on, as the answer to the probe `name`."""
        return Status(
            id=name,
            running=len(self._scheduler.running),
            waiting=self._scheduler.queue_length,
            held_tokens=self._scheduler.held_tokens,
            **asdict(self.statistics),
        )

    def submit(self, address: Address, command: Generate | Embed | Rank, now: float) -> None:
        """Admit a command to the queue, or raise `Refused`."""
        if not isinstance(command, Generate):
            raise unsupported(ModelKind.CHAT, command)
        request = _Request(address, command, self._answers_to(address, command, now))
        if command.grammar is None:
            self._enqueue(request)
            return
        self._requests[address] = request
        self._compiling[request] = self._grammars.compile(command.grammar)

    def cancel(self, address: Address) -> None:
        """Forget a request; its slots are free at once."""
        request = self._requests.pop(address, None)
        if request is None:
            return
        self._compiling.pop(request, None)
        for answer in request.answers:
            if self._answers.pop(answer.sequence, None) is not None:
                self._scheduler.remove(answer.sequence)

    def abandon(self, connection: int) -> None:
        """Forget all requests of a connection that is gone."""
        for address in [address for address in self._requests if address.connection == connection]:
            self.cancel(address)

    def turn(self, now: float) -> None:
        """Admit, plan, compute, choose, publish."""
        self._take_compiled()
        self._expire(now)
        for admitted in self._scheduler.admit() or self._scheduler.compact():
            self._place(admitted)
        work = self._with_drafts(self._scheduler.plan())
        if not work:
            return
        try:
            rows = self._forward(work)
        except NoRoom:
            self._without_room(work)
            return
        self._has_room = True
        self.statistics.count(
            sequences=len(work), tokens=sum(item.count + len(item.draft) for item in work)
        )
        self._settle(work, list(rows))

    def abort(self, message: str) -> None:
        """A turn failed, and with it its requests: nothing that it computed is believed."""
        running = self._scheduler.running
        slots = [sequence.slot for sequence in running if sequence.slot is not None]
        doomed = {sequence.request for sequence in running} or set(self._requests)
        for request in [self._requests[address] for address in self._requests if address in doomed]:
            self._fail(request, Failure.INTERNAL, message)
        for slot in slots:
            self._model.truncate(slot, 0)
            self._scheduler.forget(slot)

    def _answers_to(self, address: Address, command: Generate, now: float) -> list[Answer]:
        prompt = self._bounds.admit(command, self._model.vocabulary)
        sequences = [
            Sequence(
                request=address,
                index=index,
                tokens=list(prompt.tokens),
                limit=prompt.limit,
                arrived_at=now,
                priority=command.priority,
                wants_prompt_logits=command.echo and command.sampling.logprobs is not None,
            )
            for index in range(answers_wanted(command))
        ]
        vocabulary = self._model.vocabulary
        return [Answer(command, one, vocabulary, prompt.prediction) for one in sequences]

    def _take_compiled(self) -> None:
        """Queue the requests whose grammar is ready, and refuse those whose grammar is none."""
        if self._compiling and self._scheduler.is_idle:
            wait(self._compiling.values(), _COMPILING_S, "FIRST_COMPLETED")
        ready = [request for request, grammar in self._compiling.items() if grammar.done()]
        for request in ready:
            grammar = self._compiling.pop(request)
            try:
                compiled = grammar.result()
                self._enqueue(request)
            except GrammarError as error:
                self._fail(request, Failure.INVALID, str(error), "grammar")
            except Refused as refusal:
                self._fail(request, refusal.failure, str(refusal), refusal.field)
            else:
                for answer in request.answers:
                    answer.constraint = compiled.constraint()

    def _enqueue(self, request: _Request) -> None:
        """Let a request wait for its slot, or raise `Refused`."""
        first = request.answers[0].sequence
        if first.is_full and not first.needs_prompt_logits:
            self._answer_at_once(request)
            return
        if self._scheduler.queue_length >= self._queue_limit + self._scheduler.free_slots:
            raise Refused(
                Failure.QUEUE_FULL, f"{self._queue_limit} requests are waiting already; try later."
            )
        self._requests[request.address] = request
        self._answers.update({answer.sequence: answer for answer in request.answers})
        self._scheduler.add(*(answer.sequence for answer in request.answers))

    def _answer_at_once(self, request: _Request) -> None:
        """No token is wanted, and nothing must be computed."""
        self._accept(request)
        for answer in request.answers:
            self._show(request, answer.end_at_prompt())
        self._close(request)

    def _expire(self, now: float) -> None:
        overdue = self._scheduler.overdue(now - self._queue_deadline_s)
        message = f"No slot became free within {self._queue_deadline_s:g} seconds; try later."
        for address in {sequence.request for sequence in overdue}:
            self._fail(self._requests[address], Failure.QUEUE_DEADLINE, message)

    def _place(self, admitted: Admitted) -> None:
        sequence, placement = admitted.sequence, admitted.placement
        for copy in placement.copies:
            self._model.copy(copy.source, copy.target)
        if not self._model.truncate(placement.slot, placement.keep):
            self._model.truncate(placement.slot, 0)
            self._scheduler.recompute(sequence)
        self._accept(self._requests[sequence.request])

    def _accept(self, request: _Request) -> None:
        if request.is_accepted:
            return
        request.is_accepted = True
        first = request.answers[0]
        event = Accepted(
            id=request.address.id,
            prompt_tokens=first.sequence.prompt_tokens,
            prediction_tokens=len(first.prediction),
        )
        self._publish(request.address, event)

    def _with_drafts(self, work: list[Work]) -> list[Work]:
        """Let those who talk guess ahead, where that is worth it."""
        self._speculation.measured(self.statistics)
        guessers = {}
        for item in work:
            if item.sequence.behind == 1:
                answer = self._answers[item.sequence]
                if self._draft_tokens or answer.prediction:
                    guessers[item.sequence] = answer.guess(self._speculation.chances)
        if not self._draft_tokens or not self._has_room:
            return work
        return self._speculation.with_drafts(work, guessers, self._scheduler.room(work))

    def _without_room(self, work: list[Work]) -> None:
        """The cells do not hold what this pass computes: draft nothing next time, or make room."""
        self._has_room = False
        if not any(item.draft for item in work):
            self._make_room()

    def _make_room(self) -> None:
        slot = self._scheduler.make_room()
        if slot is None:
            raise MemoryError("the cells do not hold even one sequence")
        self._model.truncate(slot, 0)

    def _forward(self, work: list[Work]) -> NDArray[np.float32]:
        """Compute `work`; meanwhile grammars find out what their answers allow next."""
        answers = [
            self._answers[item.sequence] for item in work if item.count == item.sequence.behind
        ]
        constraints = [answer.constraint for answer in answers if answer.constraint is not None]
        if not constraints:
            return self._model.forward(work)
        looking = self._grammars.look_ahead(constraints)
        try:
            return self._model.forward(work)
        finally:
            looking.result()

    def _settle(self, work: list[Work], rows: list[Row]) -> None:
        """Hand each row of logits to whom it belongs, in the order of the pass."""
        last_rows: dict[Sequence, list[Row]] = {item.sequence: [] for item in work}
        remaining = iter(rows)
        for item in work:
            for position in item.output_positions:
                if position >= len(item.sequence.tokens) - 1:
                    last_rows[item.sequence].append(next(remaining))
                else:
                    self._answers[item.sequence].read_prompt(next(remaining), position)
        drafts = {item.sequence: (item.sequence.slot, item.draft) for item in work}
        for sequence in self._scheduler.settle(work):
            slot, draft = drafts[sequence]
            length, kept = len(sequence.tokens), 0
            if sequence in self._answers:  # its request may just have failed
                kept = self._advance(self._answers[sequence], last_rows[sequence], draft)
            if slot is not None and kept < len(draft):
                self._cut(sequence, slot, length + kept)

    def _advance(self, answer: Answer, rows: list[Row], draft: tuple[int, ...]) -> int:
        """Go on with an answer; gives how many tokens of its draft came next."""
        request, kept = self._requests[answer.sequence.request], 0
        try:
            if answer.sequence.is_full:
                delta = answer.end_at_prompt()
            else:
                delta, kept = answer.follow(rows, draft)
        except NoChoice as error:
            self._fail(request, Failure.INTERNAL, str(error))
            return 0
        except GrammarError as error:
            self._fail(request, Failure.INVALID, str(error), "grammar")
            return 0
        self._scheduler.keep(answer.sequence, draft[:kept])
        self._show(request, delta)
        if answer.is_finished:
            self._retire(request, answer)
        return kept

    def _retire(self, request: _Request, answer: Answer) -> None:
        del self._answers[answer.sequence]
        self._scheduler.remove(answer.sequence)
        if request.is_finished:
            self._close(request)

    def _cut(self, sequence: Sequence, slot: int, length: int) -> None:
        """Forget the cells of a draft that did not come next."""
        if self._model.truncate(slot, length):
            return
        self._draft_tokens = 0  # it was believed that this state can be cut
        self._model.truncate(slot, 0)
        if sequence.slot is None:
            self._scheduler.forget(slot)
        else:
            self._scheduler.recompute(sequence)

    def _show(self, request: _Request, delta: Delta | None) -> None:
        if delta is not None:
            self._publish(request.address, delta)

    def _close(self, request: _Request) -> None:
        self._requests.pop(request.address, None)
        for delta in request.best():
            self._show(request, delta)

    def _fail(
        self, request: _Request, failure: Failure, message: str, field: str | None = None
    ) -> None:
        self.cancel(request.address)
        event = Failed(id=request.address.id, failure=failure, message=message, field=field)
        self._publish(request.address, event)
