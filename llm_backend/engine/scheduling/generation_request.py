"""One generation request, from `submit` to its last event."""

from collections import abc

import msgspec

from llm_backend.engine.media_runs import Run
from llm_backend.engine.messages import Delta, Generate, MediaSpan, Priority, SlotAssigned
from llm_backend.engine.messages.address import Address
from llm_backend.engine.output.output_builder import OutputBuilder
from llm_backend.engine.scheduling.generated_tokens import Tokenization


class GenerationRequest:
    """A `Generate` command and its answers. The request has started (`has_started`) when its first
    answer gets a slot; other answers may wait longer. The tokens of a chat's answer are
    remembered by its `tokenization`, if it has one."""

    def __init__(
        self,
        address: Address,
        command: Generate,
        answers: list[OutputBuilder],
        arrived_at: float,
        tokenization: Tokenization | None = None,
    ) -> None:
        self.address = address
        self.command = command
        self.consumers = answers
        self.tokenization = tokenization
        self.arrived_at = arrived_at
        self.has_started = False
        self._is_taken = False

    @property
    def priority(self) -> Priority:
        """Priority of the request: its order in the waiting queue, and its deadline."""
        return self.command.priority

    @property
    def needs_slot(self) -> bool:
        """True if a pass must be computed to answer the request."""
        first = self.consumers[0].sequence
        return not first.is_full or first.needs_prompt_logits

    @property
    def is_finished(self) -> bool:
        """True if all answers are finished."""
        return all(answer.is_finished for answer in self.consumers)

    def take_consumers(self) -> list[OutputBuilder]:
        """Hands the answers to the scheduler: all at the first call, none later."""
        taken, self._is_taken = [] if self._is_taken else self.consumers, True
        return taken

    def slot_assigned(self) -> SlotAssigned:
        """The event for the first slot of the request."""
        first = self.consumers[0]
        return SlotAssigned(
            id=self.address.id,
            prompt_tokens=first.sequence.prompt_tokens,
            prediction_tokens=len(first.prediction),
            media=media_spans(first.sequence.runs),
        )

    def progress(self, answer: object) -> Delta | None:
        """Counts the tokens of buffered answers (`best_of`) so far, for a client that leaves before
        their end: once a pass, with the last `answer` that goes on. None for other answers, whose
        deltas count them."""
        if self.command.answer_count == self.command.n:
            return None
        running = (one for one in reversed(self.consumers) if not one.is_finished)
        if answer is not next(running, self.consumers[-1]):
            return None
        return Delta(
            id=self.address.id,
            index=0,
            text="",
            completion_tokens=0,
            cached_tokens=self.consumers[0].sequence.cached_tokens,
            discarded_tokens=sum(answer.sequence.generated for answer in self.consumers),
        )

    def final_events(self) -> list[Delta]:
        """The best `n` of the buffered answers (`best_of`), best first, renumbered from 0. The
        first one counts the tokens of the others."""
        ranked = sorted(self.consumers, key=lambda answer: -answer.quality)
        deltas = [answer.buffered for answer in ranked if answer.buffered is not None]
        best, others = deltas[: self.command.n], deltas[self.command.n :]
        discarded = sum(delta.completion_tokens for delta in others)
        return [
            msgspec.structs.replace(delta, index=index, discarded_tokens=0 if index else discarded)
            for index, delta in enumerate(best)
        ]


def media_spans(runs: abc.Sequence[Run]) -> list[MediaSpan]:
    """Positions of images and audio in a prompt."""
    return [
        MediaSpan(medium=run.media.medium, start=run.start, tokens=run.part.count) for run in runs
    ]
