"""Jobs: claimed by one process at a time, retried, and taken over from dead processes."""

import asyncio
import contextlib
import fcntl
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llm_backend.store import (
    Database,
    Job,
    JobKind,
    Jobs,
    LeaseLost,
    NewJob,
    RetryLater,
    StoreUnavailable,
    run_jobs,
)
from llm_backend.store.jobs import job_rows
from llm_backend.store.jobs.lease_holder import LeaseHolder
from tests.clock import Clock
from tests.patience import settle

NOW = 1_700_000_000.0
PROGRAM = Path(__file__).with_name("holding.py")


class Worker:
    """Records its jobs; `does` is its work."""

    def __init__(self, does: Callable[[Job], object] | None = None) -> None:
        self.done: list[str] = []
        self.given_up: list[str] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self._does = does

    async def work(self, job: Job) -> None:
        self.begun.set()
        await self.may_end.wait()
        if self._does:
            self._does(job)
        self.done.append(job.subject)

    async def give_up(self, job: Job) -> None:
        self.given_up.append(job.subject)


@pytest.fixture
def jobs(database: Database, clock: Clock) -> Jobs:
    return Jobs(database, lease_s=30, clock=clock)


def running(jobs: Jobs, worker: Worker, **changes: Any) -> contextlib.AbstractAsyncContextManager:
    return run_jobs(jobs, [JobKind(name="k", worker=worker, **{"max_concurrency": 2, **changes})])


def new(*subjects: str, delay_s: float = 0.0) -> list[NewJob]:
    return [NewJob(kind="k", subject=subject, delay_s=delay_s) for subject in subjects]


async def until(claim: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not claim():  # noqa: ASYNC110 (any claim can be waited for)
            await asyncio.sleep(0.005)


async def test_jobs_are_counted_by_kind(jobs, clock):
    await jobs.add(
        *(NewJob(kind="a", subject=str(number)) for number in range(4)),
        NewJob(kind="a", subject="later", delay_s=100),
    )
    clock.now += 5
    await jobs.claim("a", 1)
    await jobs.add(NewJob(kind="b", subject="1"))
    clock.now += 7

    backlog = {one.kind: one for one in await jobs.backlog()}
    assert (backlog["a"].due, backlog["a"].running, backlog["a"].later) == (3, 1, 1)
    assert (backlog["a"].lag_s, backlog["b"].lag_s) == (12, 7)
    clock.now += 24  # the lease is not renewed and expires
    assert [one.due for one in await jobs.backlog()] == [4, 1]


async def test_jobs_of_a_kind_that_cannot_begin_are_left_to_others(database, jobs):
    worker, ready = Worker(), []
    await jobs.add(*new("a"))
    async with running(jobs, worker, can_begin=lambda: bool(ready)):
        await settle()
        before = list(worker.done)
        ready.append(True)
        jobs.wake()
        await until(lambda: worker.done)

    assert (before, worker.done) == ([], ["a"])


async def test_jobs_with_an_affinity_are_done_by_its_processes_and_none_without_it(database, jobs):
    async def nowhere() -> None:
        """It is not known yet."""

    async def here() -> list[str]:
        return ["here", "near"]

    lost, worker = Worker(), Worker()
    affinities = {"a": "here", "b": "there", "c": None, "d": "near"}
    await jobs.add(
        *(NewJob(kind="k", subject=one, affinity=affinity) for one, affinity in affinities.items())
    )
    async with running(jobs, lost, affinities=nowhere):
        await jobs.wait_for_change(0.05)
    async with running(jobs, worker, affinities=here):
        await until_deleted(database, "a", "c", "d")

    assert lost.done == []
    assert worker.done == ["a", "c", "d"]
    assert [job.subject for job in await jobs.claim("k", 2, "there")] == ["b"]


async def waiting(database: Database, subject: str = "a") -> bool:
    return await database.read(job_rows.are_any, kind="k", subject=subject)


async def until_deleted(database: Database, *subjects: str) -> None:
    """Waits for the rows, not for the work: a runner that stops between both gives the job back."""
    async with asyncio.timeout(30):
        for subject in subjects:
            while await waiting(database, subject):  # noqa: ASYNC110 (rows send no event)
                await asyncio.sleep(0.005)


async def test_jobs_are_done_once_and_deleted(database, jobs):
    worker = Worker()
    async with running(jobs, worker):
        await jobs.add(*new("a", "b", "c"))
        await until_deleted(database, "a", "b", "c")

    assert sorted(worker.done) == ["a", "b", "c"]


async def test_runner_keeps_the_limit_of_concurrent_jobs(jobs):
    worker = Worker()
    worker.may_end.clear()
    await jobs.add(*new("a", "b", "c"))
    async with running(jobs, worker):
        await worker.begun.wait()
        others = await jobs.claim("k", 5)

    assert [job.subject for job in others] == ["c"]


async def test_concurrent_claims_never_get_the_same_job(database, jobs):
    other = Jobs(database, lease_s=30, clock=Clock())
    subjects = [str(number) for number in range(40)]
    await jobs.add(*new(*subjects))

    claimed = await asyncio.gather(*(one.claim("k", 5) for one in (jobs, other) * 4))

    assert sorted(job.subject for some in claimed for job in some) == sorted(subjects)


async def test_jobs_are_claimed_in_order_and_not_before_they_are_due(jobs, clock):
    await jobs.add(*new("late", delay_s=10), *new("a", "b"))
    first = await jobs.claim("k", 5)
    clock.now += 10
    second = await jobs.claim("k", 5)

    assert [job.subject for job in first] == ["a", "b"]
    assert [job.subject for job in second] == ["late"]


async def test_expired_lease_is_claimed_and_its_holder_gets_lease_lost(database, jobs, clock):
    await jobs.add(*new("a"))
    (lost,) = await jobs.claim("k", 1)
    clock.now += 29
    too_early = await jobs.claim("k", 1)
    clock.now += 1
    (job,) = await jobs.claim("k", 1)

    assert too_early == []
    assert (lost.attempt, job.attempt) == (1, 2)
    for attempt in (job_rows.lock, job_rows.reset_attempts, job_rows.finish):
        with pytest.raises(LeaseLost):
            await database.write(attempt, job=lost)
    await database.write(job_rows.lock, job=job)


async def test_renewed_lease_does_not_expire(jobs, clock):
    await jobs.add(*new("a"))
    held = await jobs.claim("k", 1)
    clock.now += 20
    await jobs.renew(held)
    clock.now += 20

    assert await jobs.claim("k", 1) == []


async def test_progress_resets_the_attempts_of_a_job(database, jobs):
    await jobs.add(*new("a"))
    for _ in range(3):
        (job,) = await jobs.claim("k", 1)
        await database.write(job_rows.reset_attempts, job=job)
        await jobs.release(job, counts=True)

    assert job.attempt == 2


async def test_failing_job_is_retried_and_given_up_in_the_end(database, jobs, clock, caplog):
    caplog.set_level(logging.CRITICAL)

    def fail(job: Job) -> None:
        raise RuntimeError("no")

    def is_given_up() -> bool:
        clock.now += 1  # past the pause before the next attempt
        jobs.wake()
        return bool(worker.given_up)

    worker = Worker(fail)
    async with running(jobs, worker, attempts=3):
        await jobs.add(*new("a"))
        await until(is_given_up)
        await until_deleted(database, "a")

    assert worker.given_up == ["a"]


def pauses(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses after the attempts of jobs, as they are made."""
    release, delays = jobs.release, list[float]()

    async def note(job: Job, *, delay_s: float = 0.0, counts: bool) -> None:
        delays.append(delay_s)  # first, as the next attempt may begin before the release returns
        await release(job, delay_s=delay_s, counts=counts)

    monkeypatch.setattr(jobs, "release", note)
    return delays


async def test_outages_of_storage_in_a_row_lengthen_the_pause_of_a_job(
    database, clock, monkeypatch, caplog
):
    jobs = Jobs(database, lease_s=1e9, clock=clock)
    due_after = pauses(jobs, monkeypatch)

    def fail(job: Job) -> None:
        raise StoreUnavailable("The bucket cannot be reached.")

    def has_failed_often() -> bool:
        clock.now += 60
        jobs.wake()
        return len(due_after) >= 8

    worker = Worker(fail)
    async with running(jobs, worker, attempts=3):
        await jobs.add(*new("a"))
        await until(has_failed_often)

    assert due_after[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert worker.given_up == []  # it is not the job's fault
    waits = [one for one in caplog.records if one.message == "job_waits"]
    assert {(one.levelname, one.exc_info) for one in waits} == {("WARNING", None)}


async def test_pause_of_a_job_begins_again_after_an_outage(database, clock, monkeypatch):
    jobs = Jobs(database, lease_s=1e9, clock=clock)
    failures = [StoreUnavailable("down")] * 3 + [RetryLater(5)] + [StoreUnavailable("down")]
    due_after = pauses(jobs, monkeypatch)

    def fail(job: Job) -> None:
        if failures:
            raise failures.pop(0)

    def is_done() -> bool:
        clock.now += 60
        jobs.wake()
        return bool(worker.done)

    worker = Worker(fail)
    async with running(jobs, worker):
        await jobs.add(*new("a"))
        await until(is_done)

    assert due_after[:5] == [1, 2, 4, 5, 2]  # the last one is the second that counts


async def test_stopped_runner_gives_back_its_jobs(jobs):
    worker = Worker()
    worker.may_end.clear()
    await jobs.add(*new("a"))
    async with running(jobs, worker):
        await worker.begun.wait()
    (job,) = await jobs.claim("k", 1)

    assert job.attempt == 1
    assert worker.done == []


async def test_removed_job_is_stopped(jobs):
    worker = Worker()
    worker.may_end.clear()
    async with running(jobs, worker, max_concurrency=1):
        await jobs.add(*new("a", "b"))
        await worker.begun.wait()
        worker.begun.clear()
        await jobs.remove("k", "a")
        await worker.begun.wait()  # there is room
        worker.may_end.set()
        await until(lambda: worker.done)

    assert worker.done == ["b"]


async def test_remove_not_running_leaves_running_jobs_alone(database, jobs):
    await jobs.add(*new("a", "a"), *new("a", delay_s=10))
    (held,) = await jobs.claim("k", 1)
    await database.write(job_rows.remove_not_running, kind="k", subject="a", now=NOW)
    await jobs.finish(held)  # raises if the job was removed

    assert not await waiting(database)


async def test_jobs_are_added_in_the_transaction_of_their_subject(database, jobs):
    def fail(connection) -> None:
        job_rows.add(connection, new("a"), now=NOW)
        raise LeaseLost("anything")

    with pytest.raises(LeaseLost):
        await database.write(fail)

    assert not await waiting(database)


async def test_runner_survives_a_database_that_is_down(jobs, monkeypatch):
    worker = Worker()
    read, failures = jobs.due_in_s_and_held_jobs, [StoreUnavailable("down")]

    async def failing(*arguments):
        if failures:
            raise failures.pop()
        return await read(*arguments)

    monkeypatch.setattr(jobs, "due_in_s_and_held_jobs", failing)
    async with running(jobs, worker):
        await until(lambda: not failures)
        await jobs.add(*new("a"))
        await until(lambda: worker.done)

    assert worker.done == ["a"]


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_leases_of_a_killed_process_are_released_at_once_on_sqlite(
    database, sqlite_url, jobs
):
    await jobs.add(*new("a", "b"))
    with holding(sqlite_url, 1):
        await jobs.release_dead_leases()
        held = await jobs.claim("k", 5)
    await jobs.release_dead_leases()
    taken_over = await jobs.claim("k", 5)

    assert [job.subject for job in held] == ["b"]
    assert [(job.subject, job.attempt) for job in taken_over] == [("a", 2)]


def test_holder_removes_files_of_processes_killed_before_they_were_named(tmp_path):
    folder = tmp_path / "state.db-holders"
    folder.mkdir()
    (folder / "dead.new").touch()
    with LeaseHolder(tmp_path / "state.db").mark_alive():
        alive = [path.suffix for path in folder.iterdir()]

    assert alive == [""]
    assert list(folder.iterdir()) == []


def test_holder_names_other_living_servers_and_not_other_processes_of_its_own(tmp_path):
    database = tmp_path / "state.db"
    own, peer, other = (LeaseHolder(database, server) for server in ("1-a", "1-a", "1-b"))
    with peer.mark_alive(), own.mark_alive():
        with other.mark_alive():
            during = own.other_servers()
        after = own.other_servers()

    assert (during, after) == ([1], [])
    assert LeaseHolder(None).other_servers() == []


def test_holder_whose_new_file_another_one_removes_makes_it_again(tmp_path, monkeypatch):
    folder, flock = tmp_path / "state.db-holders", fcntl.flock
    other = LeaseHolder(tmp_path / "state.db")

    def lock_late(file, operation) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        with other.mark_alive():
            flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with LeaseHolder(tmp_path / "state.db").mark_alive():
        alive = [path.suffix for path in folder.iterdir()]

    assert alive == [""]


@contextlib.contextmanager
def holding(url: str, number: int) -> AsyncIterator[None]:
    """A process that holds this number of jobs; killed at the end."""
    with subprocess.Popen(
        [sys.executable, PROGRAM, url, str(number)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield
        process.kill()
