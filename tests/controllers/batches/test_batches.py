"""Batches from their input to their files, with an application that answers at once."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from llm_backend.access import Caller
from llm_backend.backends.local.task_priority import priority_of
from llm_backend.controllers.batches import line_chunk, lines_worker
from llm_backend.controllers.batches.batch_worker import BatchWorker
from llm_backend.controllers.batches.line_sender import LineSender
from llm_backend.controllers.batches.lines_worker import LinesWorker
from llm_backend.engine.messages import Priority
from llm_backend.errors import Internal, ServiceUnavailable, Unauthorized
from llm_backend.settings import Settings
from llm_backend.store import (
    BATCH,
    BATCH_LINES,
    BatchEnded,
    BatchStatus,
    BatchStore,
    Blobs,
    Bucket,
    Database,
    DeliveryLimit,
    FileInUse,
    FileStore,
    Job,
    JobKind,
    Jobs,
    LineResult,
    Missing,
    NewJob,
    RetryLater,
    StoredBatch,
    StoredFile,
    StoreUnavailable,
    migrate,
)
from llm_backend.store.batches import line_rows
from llm_backend.store.jobs import run_jobs
from llm_backend.store.tables.batches import batches
from llm_backend.store.tables.files import files
from tests.postgresql import PostgresqlServer
from tests.store.conftest import database, database_url, kind, postgresql_url, sqlite_url

__all__ = ["database", "database_url", "kind", "postgresql_url", "sqlite_url"]  # fixtures

ENDPOINT = "/v1/chat/completions"
USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}


@dataclass(kw_only=True)
class Application:
    """Answers with what it was asked; `answer` may say otherwise, or wait."""

    answer: Callable[[dict[str, Any]], Any] = lambda _body: None
    asked: list[int] = field(default_factory=list)
    priorities: set[Priority] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = json.loads((await receive())["body"])
        assert (scope["method"], scope["path"]) == ("POST", ENDPOINT)
        assert scope["state"]["is_batch"]
        self.asked.append(body["n"])
        self.priorities.add(priority_of(Priority.INTERACTIVE))
        answer = self.answer(body)
        if asyncio.iscoroutine(answer):
            answer = await answer
        response = answer or JSONResponse({"said": body["n"], "usage": USAGE})
        response.headers["x-request-id"] = f"req_{body['n']}"
        await response(scope, receive, send)


@dataclass(kw_only=True)
class Server:
    """Stores and workers of one process that runs batches."""

    database: Database
    jobs: Jobs
    files: FileStore
    batches: BatchStore
    settings: Settings
    application: Application = field(default_factory=Application)
    caller_of: Callable[[str | None], Caller] = lambda key_id: Caller(key_id=key_id)

    async def find_caller_of(self, key_id: str | None) -> Caller:
        return self.caller_of(key_id)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with run_jobs(
            self.jobs,
            [
                JobKind(name=BATCH, worker=self.batch_worker, max_concurrency=2),
                JobKind(name=BATCH_LINES, worker=self.lines_worker, max_concurrency=2),
            ],
        ):
            yield

    @property
    def batch_worker(self) -> BatchWorker:
        return BatchWorker(self.batches, self.files, self.settings)

    @property
    def lines_worker(self) -> LinesWorker:
        sender = LineSender(self.application)
        return LinesWorker(self.batches, self.files, sender, self.find_caller_of, self.settings)

    async def first_lines(self) -> Job:
        """The first lines of the only batch, claimed."""
        (job,) = await self.jobs.claim(BATCH, 1)
        await self.batch_worker.work(job)
        await self.jobs.finish(job)
        (job,) = await self.jobs.claim(BATCH_LINES, 1)
        return job

    async def add(self, text: bytes, **changes: Any) -> StoredBatch:
        file = await self.stored(text)
        now = int(time.time())
        batch = StoredBatch(
            id=f"batch_{file.id}",
            created_at=now,
            endpoint=ENDPOINT,
            input_file_id=file.id,
            completion_window="24h",
            expires_at=now + 24 * 3600,
        )
        batch = replace(batch, **changes)
        await self.batches.add(batch)
        return batch

    async def stored(self, text: bytes, **changes: Any) -> StoredFile:
        async def pieces() -> AsyncIterator[bytes]:
            yield text

        async with self.files.blobs.writing(pieces()) as blob:
            plain: dict[str, Any] = {
                "id": f"file-{blob.key}",
                "created_at": int(time.time()),
                "purpose": "batch",
                "filename": "in.jsonl",
                "media_type": "application/jsonl",
            }
            file = StoredFile(content=(blob,), **(plain | changes))
            await self.files.add(file)
        return file

    async def ended(self, id: str) -> StoredBatch:
        return await self.come_to(id, lambda batch: batch.status.is_end)

    async def come_to(self, id: str, there: Callable[[StoredBatch], object]) -> StoredBatch:
        async with asyncio.timeout(60):
            while not there(batch := await self.batches.get(id)):  # noqa: ASYNC110 # any claim
                await asyncio.sleep(0.01)
        return batch

    async def lines_of(self, id: str | None) -> list[dict[str, Any]]:
        assert id is not None
        file = await self.files.get(id)
        text = b"".join([piece async for piece in self.files.read(file, 0, file.size_bytes)])
        return [json.loads(line) for line in text.splitlines()]


def server_on(database: Database, folder: Path, **settings: Any) -> Server:
    jobs = Jobs(database, lease_s=30)
    files = FileStore(database, Blobs(database, Bucket((folder / "files").as_uri())))
    return Server(
        database=database,
        jobs=jobs,
        files=files,
        batches=BatchStore(database, jobs, deliveries=DeliveryLimit(waiting=1)),
        settings=Settings(batch_concurrency=4, **settings),
    )


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Server:
    return server_on(database, tmp_path)


def lines(numbers: Sequence[int], **body: Any) -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"id {number}",
                "method": "POST",
                "url": ENDPOINT,
                "body": {"model": "m", "n": number, **body},
            }
        ).encode()
        + b"\n"
        for number in numbers
    )


async def test_every_line_is_answered_once_and_in_order(server):
    async with server.running():
        added = await server.add(lines(range(150)))
        batch = await server.ended(added.id)

    assert (batch.status, batch.model) == (BatchStatus.COMPLETED, "m")
    assert list(batch.times) == ["in_progress_at", "finalizing_at", "completed_at"]
    assert (batch.total, batch.completed, batch.failed) == (150, 150, 0)
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.reasoning_tokens) == (450, 150)
    assert batch.error_file_id is None
    output = await server.lines_of(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [f"id {number}" for number in range(150)]
    assert output[7]["response"] == {
        "status_code": 200,
        "request_id": "req_7",
        "body": {"said": 7, "usage": USAGE},
    }
    assert output[7]["error"] is None
    assert len({line["id"] for line in output}) == 150
    assert sorted(server.application.asked) == list(range(150))
    assert server.application.priorities == {Priority.BATCH}


async def test_a_batch_whose_lines_end_before_its_first_job_ends_once(server, monkeypatch):
    """The first job reads the state only after other jobs have answered all lines."""
    batch = await server.add(lines(range(3)))
    (first,) = await server.jobs.claim(BATCH, 1)
    begin = server.batches.begin

    async def begin_and_lose_time(*args: Any, **values: Any) -> Any:
        began = await begin(*args, **values)
        for job in await server.jobs.claim(BATCH_LINES, 10):
            await server.lines_worker.work(job)
        return began

    monkeypatch.setattr(server.batches, "begin", begin_and_lose_time)
    await server.batch_worker.work(first)
    assert (await server.batches.get(batch.id)).status is BatchStatus.FINALIZING
    (last,) = await server.jobs.claim(BATCH, 1)
    await server.batch_worker.work(last)

    assert (await server.batches.get(batch.id)).status is BatchStatus.COMPLETED
    assert len((await server.files.list(purpose="batch_output")).items) == 1


async def test_a_batch_that_two_jobs_end_has_the_files_of_one(server):
    batch = await server.add(lines(range(3)))
    await server.lines_worker.work(await server.first_lines())
    (first,) = await server.jobs.claim(BATCH, 1)
    await server.jobs.add(NewJob(kind=BATCH, subject=batch.id))
    (second,) = await server.jobs.claim(BATCH, 1)

    class Both(BatchStore):
        async def end(self, job: Job, ended: Any) -> None:
            await server.batch_worker.work(second)
            await super().end(job, ended)

    both = Both(server.database, server.jobs, deliveries=DeliveryLimit(waiting=1))
    await BatchWorker(both, server.files, server.settings).work(first)

    ended = await server.batches.get(batch.id)
    assert ended.status is BatchStatus.COMPLETED
    assert [file.id for file in (await server.files.list(purpose="batch_output")).items] == [
        ended.output_file_id
    ]


async def test_lines_that_fail_are_in_the_error_file_with_their_answer(server):
    refusal = {"error": {"message": "no", "type": "t", "param": None, "code": None}}

    def answer(body: dict[str, Any]) -> Response | None:
        if body["n"] == 1:
            return JSONResponse(refusal, status_code=400)
        statuses = {2: 200, 3: 403}  # of HTML pages
        return Response("<html>", statuses[body["n"]]) if body["n"] in statuses else None

    server.application.answer = answer
    async with server.running():
        added = await server.add(lines(range(5)) + lines([5], stream=True))
        batch = await server.ended(added.id)

    assert (batch.total, batch.completed, batch.failed) == (6, 2, 4)
    failed = await server.lines_of(batch.error_file_id)
    assert [line["custom_id"] for line in failed] == ["id 1", "id 2", "id 3", "id 5"]
    assert [line["response"]["status_code"] for line in failed] == [400, 502, 403, 400]
    assert failed[0]["response"]["body"] == refusal
    for line in failed[1:3]:
        assert line["response"]["body"]["error"]["code"] == "upstream_failed"
    assert failed[3]["response"]["body"]["error"]["param"] == "stream"
    assert 5 not in server.application.asked


async def test_a_line_or_an_answer_that_cannot_be_serialized_fails_alone(server):
    deep = b'{"deep":' + b"[" * 300 + b"]" * 300 + b"}"

    def answer(body: dict[str, Any]) -> Response | None:
        return Response(deep, media_type="application/json") if body["n"] == 1 else None

    server.application.answer = answer
    async with server.running():
        added = await server.add(lines(range(3)) + lines([3], deep=json.loads(deep)))
        batch = await server.ended(added.id)

    assert (batch.total, batch.completed, batch.failed) == (4, 2, 2)
    failed = await server.lines_of(batch.error_file_id)
    assert [line["response"]["status_code"] for line in failed] == [502, 400]
    assert 3 not in server.application.asked


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": 1 << 40}, {"prompt_tokens": -1}, {"prompt_tokens_details": [1]}, "many"],
)
async def test_invalid_usage_of_an_upstream_fails_no_line(server, usage):
    server.application.answer = lambda _body: JSONResponse({"usage": usage})
    async with server.running():
        added = await server.add(lines(range(2)))
        batch = await server.ended(added.id)

    assert (batch.completed, batch.failed) == (2, 0)
    assert batch.usage is not None
    assert batch.usage.input_tokens == 0


async def test_an_input_that_cannot_be_used_fails_the_batch_with_its_lines(server):
    async with server.running():
        added = await server.add(lines([1]) + b"{\n" + lines([1]))
        batch = await server.ended(added.id)

    assert batch.status is BatchStatus.FAILED
    assert [(error["line"], error["code"]) for error in batch.errors] == [
        (2, "invalid_json_line"),
        (3, "duplicate_custom_id"),
    ]
    assert server.application.asked == []
    assert batch.output_file_id is batch.error_file_id is None


async def test_the_lines_of_a_key_that_is_revoked_are_refused(server):
    def revoked(key_id: str | None) -> Caller:
        raise Unauthorized(f"{key_id} is revoked.")

    server.caller_of = revoked
    async with server.running():
        added = await server.add(lines([1]), key_id="key_1")
        batch = await server.ended(added.id)

    (line,) = await server.lines_of(batch.error_file_id)
    assert line["response"]["status_code"] == 401
    assert line["response"]["body"]["error"]["message"] == "key_1 is revoked."


async def test_the_lines_of_a_key_that_is_not_loaded_yet_are_tried_again(server, monkeypatch):
    monkeypatch.setattr(lines_worker, "RETRY_S", 0.001)
    outages = [ServiceUnavailable("The keys are not loaded.")] * 2

    def not_loaded(key_id: str | None) -> Caller:
        if outages:
            raise outages.pop()
        return Caller(key_id=key_id)

    server.caller_of = not_loaded
    async with server.running():
        added = await server.add(lines([1]), key_id="key_1")
        batch = await server.ended(added.id)

    assert (batch.completed, batch.failed) == (1, 0)


async def test_load_is_waited_for_and_is_not_an_answer(server, monkeypatch):
    monkeypatch.setattr(lines_worker, "RETRY_S", 0.001)
    busy = JSONResponse({"error": {}}, status_code=503)
    server.application.answer = lambda body: (
        busy if body["n"] == 1 and server.application.asked.count(1) < 3 else None
    )
    async with server.running():
        added = await server.add(lines([0, 1]))
        batch = await server.ended(added.id)

    assert (batch.completed, batch.failed) == (2, 0)
    assert server.application.asked.count(1) == 3


async def test_an_unavailable_model_delays_no_other_batch(server, monkeypatch):
    monkeypatch.setattr(lines_worker, "RETRY_S", 0.0001)
    away = JSONResponse({"error": {"message": "away"}}, status_code=503)
    server.application.answer = lambda body: away if body["n"] < 500 else None
    async with server.running():
        first = await server.add(lines(range(300)))
        await server.come_to(first.id, lambda _: server.application.asked)
        second = await server.add(lines([500]))
        other = await server.ended(second.id)
        waiting = await server.batches.get(first.id)
        stopped = await server.batches.cancel(first.id)
        batch = await server.ended(stopped.id)

    assert other.completed == 1
    assert (waiting.status, waiting.failed) == (BatchStatus.IN_PROGRESS, 0)
    assert len(server.application.asked) <= 4 * 8 * lines_worker.ATTEMPTS_PER_LINE
    assert (batch.status, batch.failed) == (BatchStatus.CANCELLED, 0)


async def test_a_model_that_stays_away_is_the_answer_in_the_end(server, monkeypatch):
    monkeypatch.setattr(lines_worker, "RETRY_S", 0.0001)
    away = JSONResponse({"error": {"message": "away"}}, status_code=503)
    server.application.answer = lambda _: away
    added = await server.add(lines([0, 1]))
    job = await server.first_lines()
    with pytest.raises(RetryLater):
        await server.lines_worker.work(job)
    before = await server.batches.get(added.id)
    await server.lines_worker.work(replace(job, attempt=line_chunk.ATTEMPTS_PER_CHUNK))
    async with server.running():
        batch = await server.ended(added.id)

    assert before.failed == 0
    failed = await server.lines_of(batch.error_file_id)
    assert [line["response"]["status_code"] for line in failed] == [503, 503]


async def test_a_quota_that_is_used_up_is_not_waited_for(server):
    used_up = {
        "error": {"message": "No.", "type": "t", "param": None, "code": "insufficient_quota"}
    }
    server.application.answer = lambda _: JSONResponse(used_up, status_code=429)
    async with server.running():
        added = await server.add(lines([1]))
        await server.ended(added.id)

    assert server.application.asked == [1]


async def test_a_cancelled_batch_keeps_finished_lines(server):
    may_go_on = asyncio.Event()

    async def answer(_body: dict[str, Any]) -> None:
        if len(server.application.asked) > 8:
            await may_go_on.wait()

    server.application.answer = answer
    async with server.running():
        added = await server.add(lines(range(1000)))
        await server.come_to(added.id, lambda batch: batch.completed == 8)
        stopped = await server.batches.cancel(added.id)
        again = await server.batches.cancel(added.id)
        may_go_on.set()
        batch = await server.ended(added.id)

    assert stopped.status is again.status is BatchStatus.CANCELLING
    assert batch.status is BatchStatus.CANCELLED
    assert batch.completed == len(server.application.asked) < 20
    assert len(await server.lines_of(batch.output_file_id)) == batch.completed
    unasked = await server.lines_of(batch.error_file_id)
    assert len(unasked) == 1000 - batch.completed
    assert {line["error"]["code"] for line in unasked} == {"batch_cancelled"}
    with pytest.raises(BatchEnded):
        await server.batches.cancel(added.id)


async def test_a_queued_batch_can_be_cancelled(server):
    added = await server.add(lines(range(3)))
    await server.batches.cancel(added.id)
    async with server.running():
        batch = await server.ended(added.id)

    assert batch.status is BatchStatus.CANCELLED
    assert server.application.asked == []
    assert batch.output_file_id is batch.error_file_id is None


async def test_an_expired_batch_keeps_finished_lines(server):
    async def answer(_body: dict[str, Any]) -> None:
        if len(server.application.asked) > 2:
            await asyncio.sleep(max(0.0, added.expires_at - time.time()))

    server.application.answer = answer
    added = await server.add(lines(range(200)), expires_at=int(time.time()) + 6)
    async with server.running():
        await server.come_to(added.id, lambda _: time.time() > added.expires_at)
        await server.batches.expire()
        batch = await server.ended(added.id)

    assert batch.status is BatchStatus.EXPIRED
    assert 2 <= batch.completed < 20
    unasked = await server.lines_of(batch.error_file_id)
    assert len(unasked) == 200 - batch.completed
    assert {line["error"]["code"] for line in unasked} == {"batch_expired"}


async def test_a_restarted_worker_runs_only_lines_without_an_answer(server, database, tmp_path):
    never = asyncio.Event()

    async def answer(_body: dict[str, Any]) -> None:
        if len(server.application.asked) > 90:
            await never.wait()

    server.application.answer = answer
    async with server.running():
        added = await server.add(lines(range(150)))
        await server.come_to(added.id, lambda batch: batch.completed == 90)
    answered = server.application.asked[:90]
    between = await server.batches.get(added.id)
    after = server_on(database, tmp_path)
    async with after.running():
        batch = await after.ended(added.id)

    assert between.completed == 90
    assert sorted(after.application.asked + answered) == list(range(150))
    assert len(await after.lines_of(batch.output_file_id)) == 150


async def test_an_outage_after_an_answer_makes_no_line_run_twice(server, monkeypatch):
    """The first line is stored, and then the database is down until all lines run."""
    monkeypatch.setattr(line_chunk, "RETRY_S", 0.001)
    are_all_asked, record = asyncio.Event(), server.batches.record_progress

    async def answer(body: dict[str, Any]) -> None:
        if len(server.application.asked) == 4:
            are_all_asked.set()
        if body["n"]:
            await are_all_asked.wait()
            await asyncio.sleep(0.05)

    outages = [StoreUnavailable("Down.")] * 3

    async def record_progress(job: Job) -> None:
        await are_all_asked.wait()
        if outages:
            raise outages.pop()
        await record(job)

    monkeypatch.setattr(server.batches, "record_progress", record_progress)
    server.application.answer = answer
    async with server.running():
        added = await server.add(lines(range(4)))
        batch = await server.ended(added.id)

    assert (batch.completed, batch.failed) == (4, 0)
    assert sorted(server.application.asked) == [0, 1, 2, 3]
    assert not outages


async def test_a_batch_that_fails_repeatedly_in_one_process_is_given_up(server):
    def answer(body: dict[str, Any]) -> None:
        if body["n"] == 1:
            raise RuntimeError("a bug")

    server.application.answer = answer
    added = await server.add(lines([0, 1]))
    job = await server.first_lines()
    with pytest.raises(Internal):
        await server.lines_worker.work(job)
    await server.lines_worker.give_up(job)
    async with server.running():
        batch = await server.ended(added.id)

    assert batch.completed + batch.failed == 2
    codes = [line["error"] for line in await server.lines_of(batch.error_file_id)]
    assert codes[-1]["code"] == "server_error"


async def lose_input(server: Server, batch: StoredBatch) -> None:
    """Deletes the bytes of the input, as a lifecycle rule of a bucket does."""
    file = await server.files.get(batch.input_file_id)
    # An empty folder would be one that is not mounted.
    await server.files.blobs._bucket.put("another/0", b"x")
    await server.files.blobs.remove([blob.key for blob in file.content])


async def test_a_batch_whose_input_is_lost_before_it_is_read_fails(server):
    added = await server.add(lines([1]))
    await lose_input(server, added)
    async with server.running():
        batch = await server.ended(added.id)
    await server.files.delete(added.input_file_id)

    assert batch.status is BatchStatus.FAILED
    assert [error["code"] for error in batch.errors] == ["input_file_missing"]
    assert server.application.asked == []


async def test_a_batch_whose_input_is_lost_while_it_runs_fails_with_its_answers(server):
    added = await server.add(lines(range(150)))
    job = await server.first_lines()
    await server.lines_worker.work(job)
    await lose_input(server, added)
    async with server.running():
        batch = await server.ended(added.id)

    assert (batch.status, batch.total, batch.completed) == (BatchStatus.FAILED, 150, 64)
    assert [error["code"] for error in batch.errors] == ["input_file_missing"]
    assert len(await server.lines_of(batch.output_file_id)) == 64
    assert batch.error_file_id is None


async def test_a_cancelled_batch_whose_input_is_lost_keeps_its_answers(server):
    added = await server.add(lines(range(150)))
    job = await server.first_lines()
    await server.lines_worker.work(job)
    await server.batches.cancel(added.id)
    await lose_input(server, added)
    async with server.running():
        batch = await server.ended(added.id)

    assert (batch.status, batch.completed) == (BatchStatus.CANCELLED, 64)
    assert len(await server.lines_of(batch.output_file_id)) == 64


async def test_the_input_of_a_batch_that_has_not_ended_is_not_deleted(server):
    added = await server.add(lines([1]))
    with pytest.raises(FileInUse, match=added.id):
        await server.files.delete(added.input_file_id)
    async with server.running():
        await server.ended(added.id)
    await server.files.delete(added.input_file_id)

    with pytest.raises(Missing):
        await server.files.get(added.input_file_id)


async def test_an_expired_input_file_is_kept_until_the_batch_has_ended(server, database):
    now = int(time.time())
    file = await server.stored(lines([1]), expires_at=now + 100)
    added = StoredBatch(
        id="batch_1",
        created_at=now,
        endpoint=ENDPOINT,
        input_file_id=file.id,
        completion_window="24h",
        expires_at=now + 100,
    )
    await server.batches.add(added)
    as_expired = update(files).where(files.c.id == file.id).values(expires_at=now - 1)
    await database.write(lambda connection: connection.execute(as_expired))
    await server.files.expire()
    await server.files.blobs.sweep()
    async with server.running():
        batch = await server.ended(added.id)
    await server.files.expire()

    assert batch.completed == 1
    with pytest.raises(Missing):
        await server.batches.find_work(added.id)


async def test_a_batch_needs_its_file(server):
    with pytest.raises(Missing, match="file-none"):
        await server.add(lines([1]), input_file_id="file-none")


async def test_batches_are_listed_newest_first_page_by_page(server):
    made = [(await server.add(lines([number]))).id for number in range(5)]

    first = await server.batches.list(limit=2)
    second = await server.batches.list(limit=9, after=first.last_id)

    assert [batch.id for batch in (*first.items, *second.items)] == made[::-1]
    assert first.has_more
    assert not second.has_more


async def test_answers_are_forgotten_once_they_are_files(server, database):
    async with server.running():
        added = await server.add(lines(range(10)))
        await server.ended(added.id)
        async with asyncio.timeout(30):
            while await server.batches.find_answered_lines(added.id, 1, 10):  # noqa: ASYNC110 # it is behind
                await asyncio.sleep(0.01)

    assert (await server.batches.get(added.id)).completed == 10


async def test_two_processes_share_the_lines_of_one_batch(
    postgresql_server: PostgresqlServer, tmp_path
):
    async def answer(_body: dict[str, Any]) -> None:
        await asyncio.sleep(0.001)

    url = postgresql_server.new_database()
    async with Database.open(url) as first, Database.open(url) as second:
        await migrate(first)
        one, two = (server_on(each, tmp_path) for each in (first, second))
        one.application.answer = two.application.answer = answer
        added = await one.add(lines(range(600)))
        async with one.running():
            await one.come_to(added.id, lambda batch: batch.completed)
            async with two.running():
                batch = await one.ended(added.id)

    assert sorted(one.application.asked + two.application.asked) == list(range(600))
    assert one.application.asked
    assert two.application.asked
    assert batch.completed == 600


async def test_counts_are_those_of_all_answers_at_any_time(server):
    held = asyncio.Event()

    async def answer(body: dict[str, Any]) -> Response | None:
        if len(server.application.asked) > 200:
            await held.wait()
        return JSONResponse({"error": {}}, status_code=400) if body["n"] % 2 else None

    server.application.answer = answer
    async with server.running():
        added = await server.add(lines(range(300)))
        midway = await server.come_to(added.id, lambda one: one.completed + one.failed == 200)
        listed = (await server.batches.list()).items[0]
        failed = sum(number % 2 for number in server.application.asked[:200])
        held.set()
        batch = await server.ended(added.id)

    assert midway.status == BatchStatus.IN_PROGRESS
    assert (midway.completed, midway.failed) == (200 - failed, failed)
    assert (listed.completed, listed.failed) == (200 - failed, failed)
    assert (batch.completed, batch.failed) == (150, 150)


async def test_answers_in_more_ranges_than_a_statement_has_columns_are_counted(server, database):
    added = await server.add(lines([0]))
    for number in (1, 1001):
        await server.batches.record(added.id, LineResult(line=number, is_error=False, text="{}"))
    ranges = [(number, number) for number in range(1, 1200)]

    def count(connection: Connection) -> tuple[int, int]:
        seq = connection.scalars(select(batches.c.seq)).one()
        return line_rows.counts_among(connection, seq, ranges)

    assert await database.read(count) == (2, 0)
