"""Files too large for what they are meant for, and for the server, by the official client."""

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from tests.controllers.administration.conftest import served

LIMIT = 2048
LARGE = b"x" * (LIMIT + 1)
JSON_LINES = ("in.jsonl", LARGE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[openai.AsyncOpenAI]:
    folder: Path = tmp_path_factory.mktemp("data")
    async with served(
        folder, batch_file_limit_bytes=LIMIT, files_limit_bytes=1024 * 1024
    ) as client_of:
        yield client_of()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_file_for_a_batch_is_bounded_where_others_are_not(client):
    with pytest.raises(openai.BadRequestError, match="at most 2048 bytes") as refused:
        await client.files.create(file=JSON_LINES, purpose="batch")

    assert refused.value.param == "file"
    assert (await client.files.create(file=JSON_LINES, purpose="user_data")).bytes == len(LARGE)
    assert (await client.files.create(file=("in.jsonl", LARGE[1:]), purpose="batch")).bytes == LIMIT


async def test_an_upload_for_a_batch_is_bounded_before_it_begins(client):
    upload = {"bytes": LIMIT + 1, "filename": "in.jsonl", "mime_type": "application/jsonl"}
    with pytest.raises(openai.BadRequestError, match="at most 2048 bytes") as refused:
        await client.uploads.create(**upload, purpose="batch")

    assert refused.value.param == "bytes"
    assert (await client.uploads.create(**upload, purpose="assistants")).status == "pending"


async def test_a_file_over_the_current_limit_makes_no_batch(tmp_path):
    async with served(tmp_path) as client_of:
        file = await client_of().files.create(file=JSON_LINES, purpose="batch")
    async with served(tmp_path, batch_file_limit_bytes=LIMIT) as client_of:
        with pytest.raises(openai.BadRequestError, match="at most 2048 bytes") as refused:
            await client_of().batches.create(
                input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
            )

    assert refused.value.param == "input_file_id"


async def test_a_part_that_would_be_over_the_bound_of_all_is_refused(client):
    upload = await client.uploads.create(
        bytes=2 * 1024 * 1024, filename="a", mime_type="text/plain", purpose="assistants"
    )
    part = b"x" * (600 * 1024)
    await client.uploads.parts.create(upload.id, data=part)

    with pytest.raises(openai.APIStatusError) as refused:
        await client.uploads.parts.create(upload.id, data=part)
    assert (refused.value.status_code, refused.value.code) == (413, "storage_full")
    await client.uploads.cancel(upload.id)
    later = await client.uploads.create(
        bytes=len(part), filename="a", mime_type="text/plain", purpose="assistants"
    )
    assert (await client.uploads.parts.create(later.id, data=part)).upload_id == later.id
