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

    `affinity` names the vector index that only some processes can open; None if any can do it. A
    job that has been due for a day, while no process could open its index, is claimed by any
    process, which ends it. An ingestion then fails. A removal does nothing, because no other index
    has the points.
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
    """Counts of the jobs of one kind: `due` jobs can be claimed (jobs whose lease has expired are
    among them), `running` jobs have a lease, and others are due `later`. The first of the due jobs
    has been due for `lag_s` seconds."""

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
        """Reports to the client that the job failed too often. The job ends when this returns."""


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

    If some jobs have an affinity, `affinity` returns that of this process before each claim. The
    process claims jobs with that affinity and jobs without any. It also claims jobs with another
    affinity that have been due for a day, and ends them. While `affinity` returns None, it claims
    no job of this kind.
    """

    name: str
    worker: JobWorker
    at_once: int
    shares: JobShares | None = None
    attempts: int = 5  # failed ones in a row, before it is given up
    can_begin: Callable[[], bool] = lambda: True  # called before each claim
    affinity: Callable[[], Awaitable[str | None]] | None = None
