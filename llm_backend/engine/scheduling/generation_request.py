"""One generation request, from `submit` to its last event."""

import msgspec

from llm_backend.engine.messages import Delta, Generate, Priority
from llm_backend.engine.messages.address import Address
from llm_backend.engine.output.output_builder import OutputBuilder


class GenerationRequest:
    """A `Generate` command and its answers. It waits until the first of its answers gets a slot
    (`has_started`); the others may wait longer for theirs."""

    def __init__(
        self, address: Address, command: Generate, answers: list[OutputBuilder], arrived_at: float
    ) -> None:
        self.address = address
        self.command = command
        self.answers = answers
        self.arrived_at = arrived_at
        self.has_started = False

    @property
    def priority(self) -> Priority:
        """Priority of the request: its order in the waiting queue, and its deadline."""
        return self.command.priority

    @property
    def needs_slot(self) -> bool:
        """True if a pass must be computed to answer the request."""
        first = self.answers[0].sequence
        return not first.is_full or first.needs_prompt_logits

    @property
    def is_finished(self) -> bool:
        """True if all answers are finished."""
        return all(answer.is_finished for answer in self.answers)

    def best(self) -> list[Delta]:
        """Returns the best `n` of the buffered answers (`best_of`), best first,
        renumbered from 0."""
        ranked = sorted(self.answers, key=lambda answer: -answer.quality)
        deltas = [
            answer.buffered for answer in ranked[: self.command.n] if answer.buffered is not None
        ]
        return [msgspec.structs.replace(delta, index=index) for index, delta in enumerate(deltas)]
