"""Ring buffer of recent error responses, one for each process."""

from collections import deque
from dataclasses import dataclass

import orjson

CAPACITY = 200  # each of a few kilobytes at most

# Python puts objects of at most 512 bytes into arenas of 1 MiB, and an arena with one live object
# is never freed. So each error is one larger object, which malloc allocates.
_LEAST_BYTES = 1024


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
        self._errors: deque[bytes] = deque(maxlen=CAPACITY)

    def add(self, error: AnsweredError) -> None:
        """Adds an error, and drops the oldest if full."""
        self._errors.append(orjson.dumps(error).ljust(_LEAST_BYTES))

    def of(self, key_id: str | None) -> list[AnsweredError]:
        """Returns the errors of a key's requests, the latest first."""
        errors = [AnsweredError(**orjson.loads(one)) for one in reversed(self._errors)]
        return [error for error in errors if error.key_id == key_id]
