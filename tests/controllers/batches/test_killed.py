"""A server killed at any point of writing a batch's files: the next one writes them whole."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from llm_backend.store import BATCH_LINES, BatchStatus, Database, migrate
from tests.controllers.batches.test_batches import USAGE, Server, lines, server_on

PROGRAM = Path(__file__).with_name("dying.py")
LINES = 150
POINTS = (
    "in-the-output",
    "between-the-files",
    "before-the-end",
    "after-the-end",
    "after-forgetting",
)


def answer(body: dict[str, Any]) -> Response | None:
    """Every third line fails."""
    return JSONResponse({"error": {}}, status_code=400) if body["n"] % 3 == 0 else None


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        server = server_on(database, tmp_path)
        server.application.answer = answer
        yield server


async def answered_batch(server: Server) -> str:
    """The id of a batch that is answered and whose files are not written yet."""
    batch = await server.add(lines(range(LINES)))
    jobs = [await server.first_lines(), *await server.jobs.claim(BATCH_LINES, 10)]
    for job in jobs:
        await server.lines_worker.work(job)
    assert (await server.batches.get(batch.id)).status is BatchStatus.FINALIZING
    return batch.id


@pytest.mark.parametrize("point", POINTS)
async def test_no_line_is_lost_or_twice_whenever_the_writer_of_the_files_is_killed(
    server: Server, tmp_path: Path, point: str
) -> None:
    id = await answered_batch(server)
    writer = await asyncio.create_subprocess_exec(sys.executable, PROGRAM, tmp_path, point)
    died = await asyncio.wait_for(writer.wait(), timeout=60)
    async with server.running():
        batch = await server.ended(id)

    assert died == -signal.SIGKILL
    assert (batch.status, batch.completed, batch.failed) == (BatchStatus.COMPLETED, 100, 50)
    assert batch.usage is not None
    assert batch.usage.input_tokens == 100 * USAGE["prompt_tokens"]
    output = await server.lines_of(batch.output_file_id)
    assert [one["custom_id"] for one in output] == [f"id {n}" for n in range(LINES) if n % 3]
    errors = await server.lines_of(batch.error_file_id)
    assert [one["custom_id"] for one in errors] == [f"id {n}" for n in range(0, LINES, 3)]
    kept = await server.files.list(purpose="batch_output")
    assert {file.id for file in kept.items} == {batch.output_file_id, batch.error_file_id}
    assert sorted(server.application.asked) == list(range(LINES))
