"""The jobs of a database: added, removed, waited for."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial

from llm_backend.store.database import Database
from llm_backend.store.jobs import job_rows
from llm_backend.store.jobs.holder import Holder
from llm_backend.store.jobs.job import Backlog, Job, JobKind, NewJob
from llm_backend.store.jobs.runner import JobRunner

__all__ = ["Jobs"]

log = logging.getLogger(__name__)

LEASE_S = 30.0  # after which work of a server that died elsewhere is taken up by another


class Jobs:
    """The jobs of a database, as one process sees them.

    Leases are by the clocks of those who hold them: where several machines share a database, these
    may differ by a fraction of a lease.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._lease_s = lease_s
        self._clock = clock
        self._holder = Holder(database.path)
        self._is_news = asyncio.Event()

    @asynccontextmanager
    async def running(self, kinds: Sequence[JobKind]) -> AsyncGenerator[None, None]:
        """Does jobs of these kinds meanwhile. At the end those in work are stopped and given back,
        so that another process has them at once. Raises `OSError` for a folder it cannot use.
        """
        if not kinds:
            yield
            return
        with self._holder.living():
            runner = JobRunner(self, kinds, lease_s=self._lease_s)
            running = asyncio.create_task(runner.run())
            running.add_done_callback(_say_if_it_failed)
            try:
                yield
            finally:
                running.cancel()
                await asyncio.wait({running})

    async def add(self, *added: NewJob) -> None:
        """Add jobs, durable on return. Who also stores something calls `job_rows.add` in the same
        transaction, and `wake` after it.
        """
        await self._database.write(partial(job_rows.add, added=added, now=self._clock()))
        self.wake()

    async def remove(self, kind: str, subject: str) -> None:
        """Delete the jobs about this. Whoever is doing one is stopped: at once in this process,
        within a third of a lease in others.
        """
        await self._database.write(partial(job_rows.remove, kind=kind, subject=subject))
        self.wake()

    def wake(self) -> None:
        """There may be jobs to claim, or some that have been removed."""
        self._is_news.set()

    async def news(self, timeout_s: float) -> None:
        """Returns when there is news, or after this time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._is_news.wait()
        except TimeoutError:
            pass
        self._is_news.clear()

    async def claim(self, kind: str, number: int, place: str | None = None) -> Sequence[Job]:
        """Up to so many jobs that are due and can be done at `place`, held from now on."""
        leases, now = self._holder.new_leases(number), self._clock()
        return await self._database.write(
            partial(
                job_rows.claim,
                kind=kind,
                leases=leases,
                place=place,
                now=now,
                until=now + self._lease_s,
            )
        )

    async def renew(self, jobs: Collection[Job]) -> None:
        """Hold those that are still held for the length of a lease from now on."""
        leases, until = [job.lease for job in jobs], self._clock() + self._lease_s
        await self._database.write(partial(job_rows.renew, leases=leases, until=until))

    async def finish(self, job: Job) -> None:
        """It is done. Raises `LeaseLost`, which also means that its worker has said so already."""
        await self._database.write(partial(job_rows.finish, job=job))

    async def give_back(self, job: Job, *, delay_s: float = 0.0, counts: bool) -> None:
        """Let another try; no matter if the lease is lost."""
        due_at = self._clock() + delay_s
        await self._database.write(
            partial(job_rows.give_back, job=job, due_at=due_at, counts=counts)
        )

    async def outlook(
        self, kinds: Collection[str], jobs: Collection[Job]
    ) -> tuple[dict[str, float], set[Job]]:
        """In how many seconds the first job of each kind is due, where there is one; and which of
        these are still held.
        """
        leases = [job.lease for job in jobs]
        due_at, held = await self._database.read(
            partial(job_rows.outlook, kinds=kinds, leases=leases)
        )
        now = self._clock()
        return (
            {kind: at - now for kind, at in due_at.items()},
            {job for job in jobs if job.lease in held},
        )

    async def backlog(self) -> Sequence[Backlog]:
        """What there is to do, of every kind of which there is something."""
        return await self._database.read(partial(job_rows.backlog, now=self._clock()))

    async def free_dead(self) -> None:
        """What dead processes held is due, where it can be told who is dead."""
        if not self._holder.knows_the_dead:
            return
        leases = await self._database.read(job_rows.leases)
        dead = [lease for lease in leases if not self._holder.is_alive(lease)]
        if dead:
            log.info("jobs_of_the_dead", extra={"number": len(dead)})
            await self._database.write(partial(job_rows.free, leases=dead, now=self._clock()))


def _say_if_it_failed(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and running.exception() is not None:
        log.critical("jobs_not_run", exc_info=running.exception())
