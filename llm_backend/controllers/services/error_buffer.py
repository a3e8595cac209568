"""Ring buffer of recent error responses, one for each process."""

from collections import deque
from dataclasses import dataclass

CAPACITY = 200  # each of a few kilobytes at most


@dataclass(frozen=True, kw_only=True)
class AnsweredError:
    """One error as its client saw it; `at` in Unix seconds, `key_id` of the request."""

    at: int
    request_id: str
    operation: str
    status: int
    code: str | None
    message: str
    key_id: str | None


class RecentErrors:
    """Ring buffer of the last errors of this process; older ones are in the log."""

    def __init__(self) -> None:
        self._errors: deque[AnsweredError] = deque(maxlen=CAPACITY)

    def add(self, error: AnsweredError) -> None:
        """Adds an error, and drops the oldest if full."""
        self._errors.append(error)

    def of(self, key_id: str | None) -> list[AnsweredError]:
        """Returns the errors of a key's requests, the latest first."""
        return [error for error in reversed(self._errors) if error.key_id == key_id]
