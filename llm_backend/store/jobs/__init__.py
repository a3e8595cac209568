"""Work that outlives the request that asked for it, done once by whoever comes first.

    # in the transaction that stores what is to be worked on; `jobs.wake()` when it is committed
    job_rows.add(connection, NewJob(kind="batch", subject=batch.id), now=now)

    # in the application, around everything that the worker uses
    async with jobs.running([JobKind(name="batch", worker=worker, at_once=4)]):
        ...

A job is a row until it is done. Who claims it has a *lease*, renewed as long as he lives: when he
dies the lease runs out, or is seen to be a dead process's, and somebody else takes the job up. So
work is done *at least* once, and what comes of it is stored once: a worker stores results in a
transaction that first calls `job_rows.hold(connection, job)`, which raises `LeaseLost` for one who
has been given up for dead.
"""

from llm_backend.store.jobs.job import Backlog, Job, JobKind, JobWorker, NewJob, TryLater
from llm_backend.store.jobs.jobs import Jobs

__all__ = ["Backlog", "Job", "JobKind", "JobWorker", "Jobs", "NewJob", "TryLater"]
