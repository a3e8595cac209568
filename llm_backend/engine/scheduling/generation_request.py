"""One request for text, between `submit` and its last event."""

import msgspec

from llm_backend.engine.messages import Delta, Generate, Priority
from llm_backend.engine.messages.address import Address
from llm_backend.engine.output.output_builder import OutputBuilder

__all__ = ["GenerationRequest"]


class GenerationRequest:
    """A command and its answers. It waits until it is accepted: until one of its answers has had a
    slot, however long the others wait for theirs."""

    def __init__(
        self, address: Address, command: Generate, answers: list[OutputBuilder], arrived_at: float
    ) -> None:
        self.address = address
        self.command = command
        self.answers = answers
        self.arrived_at = arrived_at
        self.is_accepted = False

    @property
    def priority(self) -> Priority:
        """Who goes first, and how long it may wait."""
        return self.command.priority

    @property
    def needs_slot(self) -> bool:
        """Whether anything must be computed to answer it."""
        first = self.answers[0].sequence
        return not first.is_full or first.needs_prompt_logits

    @property
    def is_finished(self) -> bool:
        """Whether all its answers are."""
        return all(answer.is_finished for answer in self.answers)

    def best(self) -> list[Delta]:
        """The answers that were held back: the best `n`, best first, numbered anew."""
        ranked = sorted(self.answers, key=lambda answer: -answer.quality)
        deltas = [answer.held for answer in ranked[: self.command.n] if answer.held is not None]
        return [msgspec.structs.replace(delta, index=index) for index, delta in enumerate(deltas)]
