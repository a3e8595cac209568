"""Values of jobs, and the protocol of their workers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Job", "JobCounts", "JobKind", "JobWorker", "NewJob", "RetryLater"]


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to add: its kind, the id of its subject, and JSON for its worker. `place` is its
    affinity, such as a vector index: only a process at that place can do it."""

    kind: str
    subject: str
    details: Mapping[str, Any] = field(default_factory=dict)  # JSON
    delay_s: float = 0.0
    place: str | None = None  # affinity: the only place that can do it; None: any


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job claimed by the holder of `lease`."""

    seq: int
    kind: str
    subject: str
    details: Mapping[str, Any]  # JSON
    attempt: int  # 1 for the first since its last progress
    lease: str
    place: str | None = None  # affinity: the only place that can do it; None: any


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """Counts of the jobs of one kind that wait, run, or are not due yet; and for how long the first
    of the waiting ones has been due."""

    kind: str
    waiting: int
    running: int
    later: int
    lag_s: float


class RetryLater(Exception):
    """Raised by a worker whose job must wait: the job is not due for `delay_s`, and the attempt
    counts."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"Not before {delay_s:g} seconds are over.")
        self.delay_s = delay_s


class JobWorker(Protocol):
    """Worker of the jobs of one kind. It may be interrupted at any point, and the job started
    again."""

    async def work(self, job: Job) -> None:
        """Do the job, which ends when this returns. A worker may also finish it earlier, in a
        transaction of its own. After an exception the job is retried with a delay, which
        `RetryLater` sets.

        Cancelled when the lease is lost, when the job is removed, and when the server stops.
        """

    async def give_up(self, job: Job) -> None:
        """Report to the client that the job failed too often. The job ends when this returns."""


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """Kind of job: its worker, and the number of jobs that run at once in one process.

    If some jobs have an affinity, `place` returns the place of this process before
    each claim. Claimed are jobs for this place, jobs for any place, and jobs for other places that
    have been due for a day, which the worker can only report as failed. None are claimed while it
    returns None.
    """

    name: str
    worker: JobWorker
    at_once: int
    attempts: int = 5  # failed ones in a row, before it is given up
    can_begin: Callable[[], bool] = lambda: True  # called before each claim
    place: Callable[[], Awaitable[str | None]] | None = None
