"""Runner of jobs in one process: claims due jobs, renews their leases, and sleeps in between."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

from llm_backend.backoff import backoff_delay_s
from llm_backend.store.errors import LeaseLost, StoreError, StoreUnavailable
from llm_backend.store.jobs.job import Job, JobKind, RetryLater
from llm_backend.store.jobs.jobs import Jobs

POLL_S = 5.0  # for jobs that other processes have added
RETRY_S, RETRY_LIMIT_S = 1.0, 60.0  # the delay doubles with every failed attempt
_REMEMBERED_OUTAGES = 1000  # jobs; beyond them the delays of the first begin again

log = logging.getLogger(__name__)


@asynccontextmanager
async def run_jobs(jobs: Jobs, kinds: Sequence[JobKind]) -> AsyncGenerator[None, None]:
    """Runs jobs of these kinds while the context lasts. At its end running jobs are stopped and
    given back, so that other processes can claim them immediately. Raises `OSError` if the folder
    of the file that marks this process alive cannot be used."""
    if not kinds:
        yield
        return
    with jobs.mark_alive():
        running = asyncio.create_task(JobRunner(jobs, kinds).run())
        running.add_done_callback(_log_crash)
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait({running})


class JobRunner:
    """Runs up to `max_concurrency` jobs of each kind."""

    def __init__(self, jobs: Jobs, kinds: Sequence[JobKind]) -> None:
        self._jobs = jobs
        self._kinds = kinds
        self._renew_every_s = jobs.lease_s / 3
        self._renewed_at_s = 0.0
        self._is_failing = False
        self._running: dict[Job, asyncio.Task[None]] = {}
        # attempts that an outage of storage ended, by the number of the job; the latest last
        self._outages: dict[int, int] = {}

    async def run(self) -> NoReturn:
        """Runs until it is cancelled; then stops running jobs and gives them back."""
        try:
            while True:
                await self._jobs.wait_for_change(await self._turn_unless_failing())
        finally:
            await self._end()

    async def _turn_unless_failing(self) -> float:
        """Runs a turn; returns the seconds until the next one, also if the database fails."""
        try:
            wait_s = await self._turn()
        except StoreError as error:  # the database may recover
            if not self._is_failing:
                log.warning("jobs_not_claimed", extra={"reason": str(error)})
            self._is_failing = True
            return POLL_S
        self._is_failing = False
        return wait_s

    async def _turn(self) -> float:
        """Renews leases, stops jobs whose leases are lost, claims due jobs; returns the seconds
        until the next turn."""
        if self._running and time.monotonic() - self._renewed_at_s >= self._renew_every_s:
            self._renewed_at_s = time.monotonic()
            await self._jobs.renew(self._running)
        await self._jobs.release_dead_leases()
        ready = [kind for kind in self._kinds if kind.can_begin()]
        free = {kind.name: kind.max_concurrency - self._running_count(kind) for kind in ready}
        claimable = [name for name, capacity in free.items() if capacity > 0]
        due_in_s, held = await self._jobs.due_in_s_and_held_jobs(claimable, list(self._running))
        for job, task in self._running.items():
            if job not in held:
                task.cancel()
        for kind in ready:
            if due_in_s.get(kind.name, 1.0) <= 0:
                for job in await self._claim(kind, free[kind.name]):
                    self._begin(kind, job)
        later = [wait_s for wait_s in due_in_s.values() if wait_s > 0]
        return min(POLL_S, *later, self._renew_every_s if self._running else POLL_S)

    async def _claim(self, kind: JobKind, number: int) -> Sequence[Job]:
        affinities = () if kind.affinities is None else await kind.affinities()
        if affinities is None:
            return ()
        return await self._jobs.claim(kind.name, number, *affinities, limits=kind.limits)

    def _running_count(self, kind: JobKind) -> int:
        return sum(job.kind == kind.name for job in self._running)

    def _begin(self, kind: JobKind, job: Job) -> None:
        log.info("job_begun", extra=_log_fields(job))
        task = asyncio.create_task(self._do(kind, job))
        self._running[job] = task
        task.add_done_callback(lambda _: self._remove_ended(job))

    def _remove_ended(self, job: Job) -> None:
        del self._running[job]
        self._jobs.wake()  # capacity is free

    async def _do(self, kind: JobKind, job: Job) -> None:
        """Runs one job, then finishes it or gives it back for another attempt."""
        is_exhausted = job.attempt > kind.attempts
        doing = kind.worker.give_up(job) if is_exhausted else kind.worker.work(job)
        error = await _failure(doing) or await _failure(self._jobs.finish(job))
        outages = self._outages.pop(job.seq, 0)
        if error is None or isinstance(error, LeaseLost):
            return  # another process has the job, or its worker has finished it
        is_outage = isinstance(error, StoreUnavailable)  # which is not the job's fault
        if is_outage:
            self._remember_outages(job, outages + 1)
        delay_s = _delay_s(job, error, outages)
        return_error = await _failure(
            self._jobs.release(job, delay_s=delay_s, counts=not is_outage)
        )
        _log_not_released(job, return_error)  # then its lease runs out

    def _remember_outages(self, job: Job, number: int) -> None:
        self._outages[job.seq] = number
        if len(self._outages) > _REMEMBERED_OUTAGES:  # others may have claimed the oldest
            del self._outages[next(iter(self._outages))]

    async def _end(self) -> None:
        """Stops all jobs and gives them back; their attempts do not count."""
        jobs, tasks = list(self._running), list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for job in jobs:
            _log_not_released(job, await _failure(self._jobs.release(job, counts=False)))


async def _failure(doing: Coroutine[None, None, None]) -> BaseException | None:
    (outcome,) = await asyncio.gather(doing, return_exceptions=True)
    return outcome


def _delay_s(job: Job, error: BaseException, outages: int) -> float:
    """Logs the error, and returns the delay before the next attempt. Attempts that an outage ended
    do not count, so `outages`, their number, is added."""
    if isinstance(error, RetryLater):
        log.info("job_waits", extra={**_log_fields(job), "delay_s": error.delay_s})
        return error.delay_s
    if isinstance(error, StoreUnavailable):
        log.warning("job_waits", extra={**_log_fields(job), "reason": str(error)})
    else:
        log.error("job_failed", extra=_log_fields(job), exc_info=error)
    return backoff_delay_s(RETRY_S, job.attempt + outages, RETRY_LIMIT_S)


def _log_not_released(job: Job, error: BaseException | None) -> None:
    if error is not None:
        log.warning("job_not_released", extra={**_log_fields(job), "reason": str(error)})


def _log_fields(job: Job) -> dict[str, object]:
    return {"kind": job.kind, "subject": job.subject, "attempt": job.attempt}


def _log_crash(running: asyncio.Task[NoReturn]) -> None:
    if not running.cancelled() and running.exception() is not None:
        log.critical("job_runner_crashed", exc_info=running.exception())
