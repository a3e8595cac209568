"""Store of jobs: adds, claims and removes them, and waits for changes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from llm_backend.store.database.database import Database
from llm_backend.store.jobs import job_rows
from llm_backend.store.jobs.job import Job, JobConcurrencyLimits, JobCounts, NewJob
from llm_backend.store.jobs.lease_holder import LeaseHolder

log = logging.getLogger(__name__)

LEASE_S = 30.0  # after which other servers claim the jobs of a dead one


class Jobs:
    """The jobs of a database, in one process.

    The time of a lease is by its holder's clock. If several machines share a database, their clocks
    may differ by a fraction of a lease at most.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = LEASE_S,
        server: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self.lease_s = lease_s
        self._clock = clock
        self._holder = LeaseHolder(database.path, server)
        self._changed = asyncio.Event()

    def mark_alive(self) -> AbstractContextManager[None]:
        """Marks this process alive, for others on this machine, while the context lasts. Raises
        `OSError` if the folder of its lock cannot be used."""
        return self._holder.mark_alive()

    def other_servers(self) -> list[int]:
        """Returns the process ids of other servers on this machine that use the database; none
        unless it is a file."""
        return self._holder.other_servers()

    async def add(self, *added: NewJob) -> None:
        """Adds jobs, durable on return. To store something else in the same transaction, call
        `job_rows.add` there and `wake` after it."""
        await self._database.write(job_rows.add, added=added, now=self._clock())
        self.wake()

    async def remove(self, kind: str, subject: str) -> None:
        """Deletes the jobs about this subject. A running one is stopped: immediately in this
        process, within a third of a lease in others."""
        await self._database.write(job_rows.remove, kind=kind, subject=subject)
        self.wake()

    def wake(self) -> None:
        """Signals that jobs were added or removed."""
        self._changed.set()

    async def wait_for_change(self, timeout_s: float) -> None:
        """Waits until jobs were added or removed, at most for this time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()

    async def claim(
        self,
        kind: str,
        number: int,
        *affinities: str,
        limits: JobConcurrencyLimits | None = None,
    ) -> Sequence[Job]:
        """Claims up to this number of due jobs that a process with these `affinities` can do,
        except jobs beyond the limits."""
        leases, now = self._holder.new_leases(number), self._clock()
        return await self._database.write(
            job_rows.claim,
            kind=kind,
            leases=leases,
            affinities=affinities,
            limits=limits,
            now=now,
            until=now + self.lease_s,
        )

    async def renew(self, jobs: Collection[Job]) -> None:
        """Extends the leases of these jobs, except lost ones, to their full length."""
        leases, until = [job.lease for job in jobs], self._clock() + self.lease_s
        await self._database.write(job_rows.renew, leases=leases, until=until)

    async def finish(self, job: Job) -> None:
        """Deletes the job, which is done. Raises `LeaseLost`, also if its worker has finished it
        already."""
        await self._database.write(job_rows.finish, job=job)

    async def release(self, job: Job, *, delay_s: float = 0.0, counts: bool) -> None:
        """Releases the job for another attempt. Does nothing if the lease is lost."""
        due_at = self._clock() + delay_s
        await self._database.write(job_rows.release, job=job, due_at=due_at, counts=counts)

    async def due_in_s_and_held_jobs(
        self, kinds: Collection[str], jobs: Collection[Job]
    ) -> tuple[dict[str, float], set[Job]]:
        """Returns the seconds until the first job of each kind is due, if there is one; and those
        of these jobs whose leases are not lost."""
        leases = [job.lease for job in jobs]
        due_at, held = await self._database.read(
            job_rows.due_times_and_held_leases, kinds=kinds, leases=leases
        )
        now = self._clock()
        return (
            {kind: at - now for kind, at in due_at.items()},
            {job for job in jobs if job.lease in held},
        )

    async def backlog(self) -> Sequence[JobCounts]:
        """Returns the counts of the jobs of every kind that has any."""
        return await self._database.read(job_rows.backlog, now=self._clock())

    async def release_dead_leases(self) -> None:
        """Releases the leases of dead processes, if this process can detect deaths."""
        if not self._holder.can_detect_death:
            return
        leases = await self._database.read(job_rows.leases)
        dead = [lease for lease in leases if self._holder.remove_dead_holder(lease)]
        if dead:
            log.info("dead_leases_released", extra={"number": len(dead)})
            await self._database.write(job_rows.release_leases, leases=dead, now=self._clock())
