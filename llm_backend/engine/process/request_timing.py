"""Timing of one request, measured in the API process."""

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class RequestTiming:
    """Timestamps of a request, in seconds of the monotonic clock; None for those not reached."""

    submitted_at: float = field(default_factory=time.monotonic)
    slot_at: float | None = None  # time at which the slot was assigned
    first_at: float | None = None  # time of the first delta
    last_at: float | None = None  # time of the latest delta

    def record_slot(self) -> None:
        """Notes that the request got its slot."""
        self.slot_at = time.monotonic()

    def record_delta(self) -> None:
        """Notes that a delta arrived."""
        self.last_at = time.monotonic()
        if self.first_at is None:
            self.first_at = self.last_at

    @property
    def queue_s(self) -> float:
        """Queue time in seconds, from submission to the slot."""
        return _between(self.submitted_at, self.slot_at)

    @property
    def prompt_s(self) -> float:
        """Prefill time in seconds, from the slot to the first delta; it includes one token."""
        return _between(self.slot_at, self.first_at)

    @property
    def generation_s(self) -> float:
        """Decode time in seconds, from the first delta to the latest one."""
        return _between(self.first_at, self.last_at)


def _between(start: float | None, end: float | None) -> float:
    return 0.0 if start is None or end is None else end - start
