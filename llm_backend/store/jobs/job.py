"""Values of jobs, and the protocol of their workers."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import Table

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to add. `subject` is the id of the object that it works on, such as a batch or a
    webhook endpoint; `details` is JSON for its worker.

    `affinity` names the vector index or the model that the job needs, and that only some processes
    have; None if any process can do the job. A job that has been due for a day, because no process
    had it, is claimed by any process, which ends it: an ingestion or a response fails, and a
    removal does nothing, because no other index has the points.
    """

    kind: str
    subject: str
    details: JsonMapping = field(default_factory=dict)
    delay_s: float = 0.0
    affinity: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A job claimed by the holder of `lease`. `kind`, `subject`, `details` and `affinity` are those
    of `NewJob`. `attempt` is the number of this one, from 1; after an attempt that made progress,
    the next one is 2."""

    seq: int  # of its row
    kind: str
    subject: str
    details: JsonMapping
    attempt: int
    lease: str
    affinity: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """Counts of the jobs of one kind: `due` jobs can be claimed, also those whose lease has
    expired; `running` jobs have a lease; others are due `later`. The first of the due jobs has been
    due for `lag_s` seconds."""

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
        """Does the job, which ends when this returns. A worker may also finish it earlier, in a
        transaction of its own. After an exception the job is retried with a delay, which
        `RetryLater` sets.

        The runner cancels it when the lease is lost, the job is removed, or the server stops.
        """

    async def give_up(self, job: Job) -> None:
        """Reports to the client that the job failed too often. The job ends when this returns."""


@dataclass(frozen=True, kw_only=True)
class JobConcurrencyLimits:
    """Bounds of the jobs of a kind that run at the same time in all processes: those about one
    subject, and those about all subjects of one owner. `subjects` is the table of the subjects,
    with `id` and `owner`."""

    per_subject: int
    per_owner: int
    subjects: Table


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """Kind of job: its worker, and the number of jobs that run at the same time in one process.

    `limits` bounds the jobs about one subject, and of one owner.

    If some jobs have an affinity, `affinities` returns those of this process before each claim. The
    process claims jobs with one of them and jobs without any. It also claims jobs with another
    affinity that have been due for a day, and ends them. While `affinities` returns None, it claims
    no job of this kind.
    """

    name: str
    worker: JobWorker
    max_concurrency: int
    limits: JobConcurrencyLimits | None = None
    attempts: int = 5  # consecutive failures before a job is given up
    can_begin: Callable[[], bool] = lambda: True  # called before each claim
    affinities: Callable[[], Awaitable[Collection[str] | None]] | None = None
