"""Text generation and label scoring: queues `Generate` and `ScoreLabels` commands, computes one
forward pass over all sequences in each step, after one of an image or audio if there is any, and
publishes deltas."""

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.command_refused import unsupported_command
from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache
from llm_backend.engine.kv_cache.lower_tiers import LowerTiers, save_threshold
from llm_backend.engine.kv_cache.prefix_files import PrefixFolder
from llm_backend.engine.media_runs import MediaError
from llm_backend.engine.messages import (
    ComputedCommand,
    Delta,
    Failure,
    Generate,
    LoadModel,
    ModelKind,
    Priority,
    ScoreLabels,
    Status,
)
from llm_backend.engine.messages.address import Address, EventSink
from llm_backend.engine.model import CellsExhausted, Model
from llm_backend.engine.output.output_builder import OutputBuilder
from llm_backend.engine.sampling import NoChoice, Row
from llm_backend.engine.sampling.constraint import CompilerError
from llm_backend.engine.sampling.grammar_limits import GrammarError
from llm_backend.engine.scheduling.generation_request import GenerationRequest
from llm_backend.engine.scheduling.prefill_budget import PrefillBudget, PrefillLimits
from llm_backend.engine.scheduling.request_table import (
    EngineRequest,
    RequestTable,
    ValidatedCommand,
)
from llm_backend.engine.scheduling.scheduler import AdmittedSequence, Scheduler
from llm_backend.engine.scheduling.scoring_request import PathScorer, PrefixPrefill
from llm_backend.engine.scheduling.slot_cells import SlotCells
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.draft_source import DraftSource
from llm_backend.engine.speculation.snapshot_drafts import is_single_part, level_drafts
from llm_backend.engine.speculation.speculative_decoding import SpeculativeDecoding
from llm_backend.engine.statistics import PassMeter
from llm_backend.engine.worker_engine import WorkerEngine

LogitsConsumer = OutputBuilder | PathScorer | PrefixPrefill
"""Consumer of the logits of one sequence, until the sequence is finished."""

_WAIT_S = 0.002  # longest wait for a grammar or a file before commands are polled again
_COPY_DIVISOR = 128  # copying a slot costs about as much as computing a 128th of a context
_MAX_COPIED_TOKENS = 4096  # of context, in the cost of a copy of only the used cells


class Generator(WorkerEngine):
    """Owns all generation requests between `submit` and their last event."""

    def __init__(
        self,
        model: Model,
        config: LoadModel,
        outbox: EventSink,
        drafter: DraftSource | None = None,
        prefixes: PrefixFolder | None = None,
        host_cache: HostPrefixCache | None = None,
    ) -> None:
        super().__init__(config, outbox.publish)
        self._model = model
        self._requests = RequestTable(model, config)
        self._outbox = outbox
        self._meter = PassMeter(self.statistics)
        cache = Cache(
            slots=model.slots,
            copy_threshold=_copied_context(model) // _COPY_DIVISOR,
            can_roll_back=model.can_roll_back,
            kv_unified=config.kv_unified,
            copies_only_used_cells=model.copies_only_used_cells,
            save_threshold=save_threshold(prefixes, host_cache),
            host_prefixes=host_cache,
        )
        self._scheduler = Scheduler(
            cache=cache,
            batch_tokens=model.batch_tokens,
            logit_rows=config.logit_rows,
        )
        self._slots = SlotCells(model, self._scheduler, drafter)
        draft_tokens = config.draft_tokens
        if not model.can_roll_back and model.rollback_tokens:
            draft_tokens = min(draft_tokens, model.rollback_tokens)
        self._may_draft = draft_tokens > 0
        self._speculation = SpeculativeDecoding(draft_tokens, drafter)
        self._prefill_budget = PrefillBudget()
        self._lower_tiers = LowerTiers(
            model,
            cache,
            self._slots,
            self.statistics,
            prefixes,
            lambda: self._prefill_budget.tokens_per_s,
            host_cache,
        )
        self._has_free_cells = True  # True unless the last pass ran out of cells
        self._consumers: dict[Sequence, LogitsConsumer] = {}  # of unfinished sequences

    @property
    def is_idle(self) -> bool:
        """True if a step would have nothing to do."""
        return self._scheduler.is_idle and not self._requests.is_compiling

    @property
    def addresses(self) -> Iterable[Address]:
        """Addresses of all requests."""
        return self._requests

    def status(self, name: str) -> Status:
        """Returns the status of the engine, as the answer to the probe `name`."""
        return self._status(
            name,
            running=len(self._scheduler.running),
            waiting=len(self._requests.waiting),
            cell_tokens=self._scheduler.cell_tokens,
            running_tokens=self._scheduler.running_tokens,
            **self._lower_tiers.status(),
        )

    def validate(self, command: Generate | ScoreLabels) -> ValidatedCommand:
        """Tokenizes and checks a command for `submit`, from any thread. Raises `CommandRefused`."""
        return self._requests.validate(command)

    def check_queue(self, priority: Priority, additional: int) -> None:
        """Raises `CommandRefused` if the queue is full after `additional` further requests."""
        free_slots = self._scheduler.free_slots
        self._requests.check_queue(priority, free_slots=free_slots, additional=additional)

    def submit(
        self,
        address: Address,
        command: ComputedCommand,
        now: float,
        validated: ValidatedCommand | None = None,
    ) -> None:
        """Queues a command. Validates it first, unless `validated` is given. Raises
        `CommandRefused`."""
        if not isinstance(command, Generate | ScoreLabels):
            raise unsupported_command(ModelKind.CHAT, command)
        free_slots = self._scheduler.free_slots
        request = self._requests.add(
            address, command, now, free_slots=free_slots, validated=validated
        )
        if request is not None:
            self._enqueue(request)

    def cancel(self, address: Address) -> None:
        """Removes a request; its slots are free immediately."""
        request = self._requests.remove(address)
        if request is None:
            return
        for consumer in request.consumers:
            if consumer.sequence in self._consumers:
                self._end_sequence(request, consumer.sequence)

    def wait(self) -> None:
        """Waits a moment if nothing can be computed until a grammar is compiled or a file is
        read."""
        if self._scheduler.is_idle and self._requests.is_compiling:
            self._requests.wait(_WAIT_S)
        elif not self._scheduler.running:
            self._lower_tiers.wait_for_read(_WAIT_S)

    def idle_timeout_s(self, now: float) -> float | None:
        """Returns the seconds until an idle engine has work without a command; None for never."""
        return self._lower_tiers.idle_timeout_s(now)

    def close(self) -> None:
        """Saves as many prefixes as time allows. No command may follow."""
        self._lower_tiers.close()

    def step(self, now: float) -> None:
        """Assigns slots, plans a pass, computes it, samples, and publishes events."""
        self._update_costs()
        self._enqueue_compiled()
        for request, message in self._requests.find_expired(
            now, can_admit=self._scheduler.can_admit
        ):
            self._fail(request.address, Failure.QUEUE_DEADLINE, message)
        self._lower_tiers.step(now, is_idle=self._scheduler.is_idle)
        if not self._scheduler.admit(self._prepare_admitted):
            for moved in self._scheduler.compact():
                self._prepare_slot(moved)
        self._encode_media()
        scheduled = self._add_drafts(self._scheduler.plan(self._prefill_limits(now)))
        if not scheduled:
            self._outbox.send()
            return
        self._outbox.begin_pass(is_decode_only=all(item.count == 1 for item in scheduled))
        try:
            rows = self._forward(scheduled)
        except CellsExhausted:
            self._handle_exhausted_cells(scheduled)
            return
        self._outbox.end_pass()
        self._speculation.record_hidden_states(scheduled)
        self._has_free_cells = True
        self.statistics.count(
            sequences=len(scheduled), tokens=sum(item.count + len(item.draft) for item in scheduled)
        )
        self._distribute(scheduled, list(rows))

    def abort(self, message: str) -> None:
        """Fails the requests of a step that raised an error, and discards the cells that it may
        have changed."""
        running = self._scheduler.running
        slots = [sequence.slot for sequence in running if sequence.slot is not None]
        affected = {sequence.request for sequence in running} or set(self._requests)
        for address in [one for one in self._requests if one in affected]:
            self._fail(address, Failure.INTERNAL, message)
        self._slots.clear(slots)

    def _update_costs(self) -> None:
        """Updates the cost models of prefill and speculation with the latest measured pass."""
        newest = self._meter.newest()
        if newest is not None:
            self._prefill_budget.record_pass(
                *newest,
                prefill_tokens=self._scheduler.prefill_tokens,
                has_long_chunk=self._scheduler.has_long_chunk,
            )
            self._speculation.record_pass(*newest)

    def _prefill_limits(self, now: float) -> PrefillLimits:
        """Returns the limits of prompt tokens in the next pass."""
        if self._requests.has_interactive:
            self._prefill_budget.record_interactive(now)
        return self._prefill_budget.limits(now)

    def _enqueue_compiled(self) -> None:
        """Queues the requests whose grammar is compiled, and fails those whose grammar is
        invalid."""
        for request, grammar in self._requests.pop_compiled():
            try:
                compiled = grammar.result()
            except GrammarError as error:
                self._fail(request.address, Failure.INVALID, str(error), "grammar", error.location)
                continue
            except CompilerError as error:
                self._fail(request.address, Failure.INTERNAL, str(error))
                continue
            for consumer in request.consumers:
                consumer.constraint = compiled.constraint()
            self._enqueue(request)

    def _enqueue(self, request: EngineRequest) -> None:
        """Queues a request for a slot, or answers it immediately if it needs none."""
        if isinstance(request, GenerationRequest) and not request.needs_slot:
            self._answer_at_once(request)
            return
        self._enqueue_consumers(request)
        self._lower_tiers.request(request.consumers[0].sequence.reusable_tokens_before_media)

    def _enqueue_consumers(self, request: EngineRequest) -> None:
        """Queues the next consumers of a request; they wait for slots."""
        for consumer in request.take_consumers():
            self._consumers[consumer.sequence] = consumer
            self._scheduler.add(consumer.sequence)

    def _answer_at_once(self, request: GenerationRequest) -> None:
        """Answers a request that generates no tokens and needs no computation."""
        self._publish_slot_assigned(request)
        for consumer in request.consumers:
            self._publish_delta(request, consumer, consumer.end_at_prompt())
        self._close(request)

    def _prepare_admitted(self, admitted: AdmittedSequence) -> None:
        self.statistics.admitted_tokens += len(admitted.sequence.tokens)
        self.statistics.cached_tokens += admitted.allocation.cached_tokens
        self._prepare_slot(admitted)

    def _prepare_slot(self, admitted: AdmittedSequence) -> None:
        self._lower_tiers.save_overwritten(admitted.allocation)
        self._slots.prepare(admitted)
        self._publish_slot_assigned(self._requests[admitted.sequence.request])

    def _publish_slot_assigned(self, request: EngineRequest) -> None:
        if request.has_started:
            return
        request.has_started = True
        self._publish(request.address, request.slot_assigned())

    def _encode_media(self) -> None:
        """Computes the next part of an image or audio in a pass of its own: a pass cannot mix
        embeddings and tokens."""
        scheduled = self._scheduler.plan_media()
        if scheduled is None:
            return
        run = scheduled.sequence.next_run
        assert run is not None, "a media run was planned"
        self._outbox.send()
        started_at = time.monotonic()
        try:
            self._slots.encode_media(run, scheduled)
        except MediaError as error:
            address = scheduled.sequence.request
            self._fail(address, Failure.INVALID, str(error), f"media[{run.number}]")
            return
        except CellsExhausted:
            self._handle_exhausted_cells([scheduled])
            return
        finally:
            self.statistics.media_s += time.monotonic() - started_at
        self.statistics.media_tokens += scheduled.count
        self._scheduler.complete_pass([scheduled])

    def _add_drafts(self, scheduled: list[ScheduledTokens]) -> list[ScheduledTokens]:
        """Returns the pass with drafts (speculative decoding) where these save time."""
        may_draft = self._may_draft and self._slots.can_truncate
        lookup_drafters = {}
        for item in scheduled:
            consumer = self._consumers[item.sequence]
            if not isinstance(consumer, OutputBuilder) or not item.needs_sampling:
                continue
            is_decoding = item.sequence.uncomputed_tokens == 1
            # A lookup drafter also counts the tokens of a prediction that are accepted, which the
            # answer reports even if no token is drafted.
            if (may_draft and is_decoding) or consumer.prediction:
                drafter = consumer.lookup_drafter(self._speculation.lookup_rates)
                if is_decoding:
                    lookup_drafters[item.sequence] = drafter
        if not may_draft or not self._has_free_cells:
            return scheduled
        capacity = self._scheduler.draft_capacity(scheduled)
        needs_snapshots = not self._model.can_roll_back and self._model.rollback_tokens > 0
        if needs_snapshots and not is_single_part(scheduled):
            return scheduled
        drafted = self._speculation.add_drafts(scheduled, lookup_drafters, capacity)
        return level_drafts(drafted) if needs_snapshots else drafted

    def _handle_exhausted_cells(self, scheduled: list[ScheduledTokens]) -> None:
        """Handles a pass that ran out of cells: the next one has no drafts. If this one had none,
        empties a slot."""
        self._has_free_cells = False
        if not any(item.draft for item in scheduled):
            self._slots.empty_slot(self._lower_tiers.save_in_host_memory)

    def _forward(self, scheduled: list[ScheduledTokens]) -> NDArray[np.float32]:
        """Computes `scheduled`, and at the same time the masks of tokens that grammars allow.
        Returns logits: [output positions, vocab] float32."""
        consumers = [
            self._consumers[item.sequence]
            for item in scheduled
            if item.count == item.sequence.uncomputed_tokens
        ]
        constraints = [
            consumer.constraint for consumer in consumers if consumer.constraint is not None
        ]
        if not constraints:
            return self._model.forward(scheduled)
        masks = self._requests.grammars.compute_masks(constraints)
        try:
            return self._model.forward(scheduled)
        finally:
            masks.result()

    def _distribute(self, scheduled: list[ScheduledTokens], rows: list[Row]) -> None:
        """Distributes the rows of logits to their sequences, in the order of the pass."""
        last_rows: dict[Sequence, list[Row]] = {item.sequence: [] for item in scheduled}
        remaining = iter(rows)
        for item in scheduled:
            for position in item.output_positions:
                if position >= len(item.sequence.tokens) - 1:
                    last_rows[item.sequence].append(next(remaining))
                else:
                    self._consumers[item.sequence].add_prompt_logprob(next(remaining), position)
        drafts = {item.sequence: (item.sequence.slot, item.draft) for item in scheduled}
        for sequence in self._scheduler.complete_pass(scheduled):
            slot, draft = drafts[sequence]
            length, accepted = len(sequence.tokens), 0
            if sequence in self._consumers:  # its request may just have failed
                accepted = self._advance(self._consumers[sequence], last_rows[sequence], draft)
            if slot is not None and accepted < len(draft):
                self._slots.truncate(sequence, slot, length + accepted)
            if sequence.slot is not None and sequence.needs_shift:
                self._scheduler.shift(sequence)
                self.statistics.context_shifts += 1

    def _advance(self, consumer: LogitsConsumer, rows: list[Row], draft: tuple[int, ...]) -> int:
        """Runs the sampling step of a sequence with its rows of logits: [rows, vocab] float32.
        Returns the number of accepted draft tokens."""
        request = self._requests[consumer.sequence.request]
        length = len(consumer.sequence.tokens)
        try:
            delta, accepted = consumer.advance_with_draft(rows, draft)
        except NoChoice as error:
            self._fail_with_cells(request, str(error))
            return 0
        except GrammarError as error:
            self._fail(request.address, Failure.INVALID, str(error), "grammar", error.location)
            return 0
        self._scheduler.accept_draft(consumer.sequence, draft[:accepted])
        self.statistics.generated_tokens += len(consumer.sequence.tokens) - length
        self._publish_delta(request, consumer, delta)
        if consumer.is_finished:
            self._remove_consumer(request, consumer)
        return accepted

    def _fail_with_cells(self, request: EngineRequest, message: str) -> None:
        """Fails a request whose cells may hold NaN, and discards these cells."""
        sequences = [consumer.sequence for consumer in request.consumers]
        slots = [sequence.slot for sequence in sequences if sequence.slot is not None]
        self._fail(request.address, Failure.INTERNAL, message)
        self._slots.clear(slots)

    def _remove_consumer(self, request: EngineRequest, consumer: LogitsConsumer) -> None:
        self._end_sequence(request, consumer.sequence)
        if request.is_finished:
            self._close(request)
        else:
            self._enqueue_consumers(request)

    def _end_sequence(self, request: EngineRequest, sequence: Sequence) -> None:
        del self._consumers[sequence]
        self._scheduler.remove(sequence)
        self._requests.remember_answer(request, sequence)

    def _publish_delta(
        self, request: EngineRequest, consumer: LogitsConsumer, event: Delta | None
    ) -> None:
        if event is None and isinstance(request, GenerationRequest):
            event = request.progress(consumer)
        if event is not None:
            self._publish(request.address, event)

    def _close(self, request: EngineRequest) -> None:
        self._requests.remove(request.address)
        for event in request.final_events():
            self._publish(request.address, event)


def _copied_context(model: Model) -> int:
    """Returns the context length by which the cost of copying a slot is estimated: that of the
    model, or at most `_MAX_COPIED_TOKENS` if only used cells are copied, of which a long context
    has few."""
    if model.copies_only_used_cells:
        return min(model.context_tokens, _MAX_COPIED_TOKENS)
    return model.context_tokens
