"""Jobs: work that outlives its request, claimed with a lease and done by one process.

    # in the transaction that stores the subject of the work; `jobs.wake()` when it is committed
    job_rows.add(connection, [NewJob(kind="batch", subject=batch.id)], now=now)

    # in the application, around everything that the worker uses
    async with run_jobs(jobs, [JobKind(name="batch", worker=worker, max_concurrency=4)]):
        ...

A job is a row until it is done. A process that claims it gets a *lease* and renews it. If the
process dies, the lease expires or is found to belong to a dead process, and another process claims
the job. So work is done *at least* once, and its results are stored once. A worker stores results
in a transaction that calls `job_rows.lock` or `finish`, after it has locked the row of the job's
subject. The calls raise `LeaseLost` if the lease is no longer the worker's own. Answers to the
lines of a batch need no lock: the first one is kept.

jobs.py          store of jobs
job.py           values, and the protocol of workers
job_rows.py      jobs as rows
runner.py        jobs of one process, claimed and run
lease_holder.py  name of a process that claims jobs, and detection of dead ones
"""

from llm_backend.store.jobs.job import (
    Job,
    JobConcurrencyLimits,
    JobCounts,
    JobKind,
    JobWorker,
    NewJob,
    RetryLater,
)
from llm_backend.store.jobs.jobs import Jobs
from llm_backend.store.jobs.runner import run_jobs

__all__ = [
    "Job",
    "JobConcurrencyLimits",
    "JobCounts",
    "JobKind",
    "JobWorker",
    "Jobs",
    "NewJob",
    "RetryLater",
    "run_jobs",
]
