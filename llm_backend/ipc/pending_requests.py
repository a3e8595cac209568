"""Pending requests: numbered requests to another process that wait for their answers."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class PendingRequests(Generic[Answer]):
    """Requests by number. `release` gives back an answer whose request was cancelled meanwhile."""

    def __init__(self, release: Callable[[Answer], None] = lambda _: None) -> None:
        self._release = release
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._disconnected: Callable[[], Exception] | None = None

    def __len__(self) -> int:
        return len(self._answers)

    def begin(self) -> int:
        """Returns the number of a new request, to be sent and then waited for. After `disconnect`,
        raises its error."""
        if self._disconnected is not None:
            raise self._disconnected()
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        return number

    async def wait(self, number: int) -> Answer:
        """Waits for the answer of a request. Raises the error of a request that has failed."""
        answer = self._answers[number]
        try:
            return await answer
        except asyncio.CancelledError:
            if not answer.cancelled() and answer.exception() is None:
                self._release(answer.result())  # it came in the same iteration of the loop
            raise
        finally:
            del self._answers[number]
            del answer  # its error holds this frame, so both would wait for the collector

    def is_pending(self, number: int) -> bool:
        """True if the request waits: it is neither answered nor cancelled."""
        return number in self._answers and not self._answers[number].done()

    def answer(self, number: int, answer: Answer) -> bool:
        """Answers a request. Returns False if it waits no longer."""
        if not self.is_pending(number):
            return False
        self._answers[number].set_result(answer)
        return True

    def fail(self, number: int, error: Exception) -> None:
        """Fails a request, unless it waits no longer."""
        if self.is_pending(number):
            self._answers[number].set_exception(error)

    def disconnect(self, error: Callable[[], Exception]) -> None:
        """Fails all requests, and later ones: the peer will answer none."""
        self._disconnected = error
        for number in self._answers:
            self.fail(number, error())
