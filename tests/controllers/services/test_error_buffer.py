"""The errors that were answered of late."""

import gc
import sys
from collections import deque

from llm_backend.controllers.services.error_buffer import CAPACITY, AnsweredError, RecentErrors


def error(number: int, key_id: str | None = None) -> AnsweredError:
    return AnsweredError(
        at=number, request_id=f"req_{number}", operation="createChatCompletion", status=400,
        code=None, message="no", key_id=key_id,
    )  # fmt: skip


def test_each_key_lists_its_own_errors_latest_first():
    errors = RecentErrors()
    for number, key_id in enumerate(["one", "two", "one", None]):
        errors.add(error(number, key_id))

    assert [one.at for one in errors.of("one")] == [2, 0]
    assert [one.at for one in errors.of(None)] == [3]


def test_old_errors_are_forgotten():
    errors = RecentErrors()
    for number in range(CAPACITY + 5):
        errors.add(error(number))

    assert len(errors.of(None)) == CAPACITY
    assert errors.of(None)[-1].at == 5


def test_errors_are_not_in_arenas_of_the_interpreter():
    """An object of at most 512 bytes would keep a whole arena that a large request has left."""
    errors = RecentErrors()
    errors.add(error(1))

    buffer = next(one for one in gc.get_referents(errors) if isinstance(one, deque))
    assert [sys.getsizeof(one) > 512 for one in buffer] == [True]
    assert all(isinstance(one, bytes) for one in buffer)
