"""Jobs as values, and what does them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Backlog", "Job", "JobKind", "JobWorker", "NewJob", "TryLater"]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """Something to do: which kind of work, the id of what it is about, and JSON for its worker."""

    kind: str
    subject: str
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON
    delay_s: float = 0.0
    place: str | None = None  # where alone it can be done


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job that has been claimed, by who holds `lease`."""

    seq: int
    kind: str
    subject: str
    details: Mapping[str, Any]  # JSON
    attempt: int  # 1 for the first since it last got on
    lease: str
    place: str | None = None  # where alone it can be done


@dataclass(frozen=True, kw_only=True)
class Backlog:
    """The jobs of one kind: how many wait, are done, or are not due yet; and since when the first
    of those that wait has been due."""

    kind: str
    waiting: int
    running: int
    later: int
    lag_s: float


class TryLater(Exception):
    """Raised by a worker that waits for something else: the job is not due for `delay_s`, and the
    attempt counts.
    """

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"Not before {delay_s:g} seconds are over.")
        self.delay_s = delay_s


class JobWorker(Protocol):
    """Does the jobs of one kind; each may be begun again after any point that it was left at."""

    async def work(self, job: Job) -> None:
        """Do it. The job is over when this returns, if it has not been finished before in a
        transaction of its own; an exception means to try again after a while, `TryLater` says when.

        Cancelled when the lease is lost, when the job is removed, and when the server ends.
        """

    async def give_up(self, job: Job) -> None:
        """It was tried too often: say so where its client looks. The job is over afterwards."""


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """Jobs of this name are done by `worker`, so many at once in one process.

    Where some can be done at one place only, `place` says before each claim which one this is:
    what is claimed are jobs for it, jobs for no place, and those for others that nobody has come
    for in a day, of which the worker can only say so. None are claimed while it says None.
    """

    name: str
    worker: JobWorker
    at_once: int
    attempts: int = 5  # that came to nothing, in a row, before it is given up
    can_begin: Callable[[], bool] = lambda: True  # asked each time before some are claimed
    place: Callable[[], Awaitable[str | None]] | None = None
