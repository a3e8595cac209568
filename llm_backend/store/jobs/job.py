"""Values of jobs, and the protocol of their workers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Table

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to add: its kind, its subject (the id of the object that it works on, such as a batch
    or a webhook endpoint), and JSON for its worker.

    `affinity` names the vector index that only some processes can open; None if any can do it.
    After it was due for a day, any process claims it to end it: an ingestion fails, and a removal
    does nothing, as no other index has the points.
    """

    kind: str
    subject: str
    details: JsonMapping = field(default_factory=dict)  # JSON
    delay_s: float = 0.0
    affinity: str | None = None  # vector index that only some processes can open; None: any


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job claimed by the holder of `lease`."""

    seq: int
    kind: str
    subject: str
    details: JsonMapping  # JSON
    attempt: int  # counted from the attempt that last made progress, which is 1
    lease: str
    affinity: str | None = None  # vector index that only some processes can open; None: any


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """Counts of the jobs of one kind: `due` ones, which can be claimed (with those whose lease has
    expired), `running` ones with a lease, and those due `later`. `lag_s` is for how long the first
    of the due ones has been due."""

    kind: str
    due: int
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

        Cancelled when the lease is lost, when the job is removed, and when the server stops: every
        job that its process no longer holds is cancelled.
        """

    async def give_up(self, job: Job) -> None:
        """Report to the client that the job failed too often. The job ends when this returns."""


@dataclass(frozen=True, kw_only=True)
class JobShares:
    """Bounds of the jobs of a kind that run at once in all processes: about one subject, and about
    all subjects of one owner. `subjects` is the table of the subjects, with `id` and `owner`."""

    per_subject: int
    per_owner: int
    subjects: Table


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """Kind of job: its worker, and the number of jobs that run at once in one process.

    `shares` bounds the jobs about one subject, and of one owner.

    If some jobs have an affinity, `affinity` returns that of this process before each claim.
    Claimed are jobs with it, jobs without any, and jobs with another one that have been due for a
    day, which the worker can only end. While `affinity` returns None, no job of this kind is
    claimed.
    """

    name: str
    worker: JobWorker
    at_once: int
    shares: JobShares | None = None
    attempts: int = 5  # failed ones in a row, before it is given up
    can_begin: Callable[[], bool] = lambda: True  # called before each claim
    affinity: Callable[[], Awaitable[str | None]] | None = None
