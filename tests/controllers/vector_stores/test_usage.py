"""Embedding usage of files and searches is charged to the project of the request."""

import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import orjson
import pytest
import pytest_asyncio

from tests.controllers.administration.conftest import Client, served
from tests.gateway import backend
from tests.upstream import Connection, FakeUpstream, Message

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKENS = 7  # of whatever is embedded
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


async def embedding(request: Message, connection: Connection) -> None:
    inputs = orjson.loads(request.body)["input"]
    data = [{"index": place, "embedding": [1.0, 0.0]} for place in range(len(inputs))]
    body = orjson.dumps({"data": data, "usage": {"prompt_tokens": TOKENS, "total_tokens": TOKENS}})
    await connection.send(HEAD % (len(body), body))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory) -> AsyncIterator[Client]:
    async with FakeUpstream(answer=embedding) as upstream:
        settings: dict[str, Any] = {
            "backends": [backend(upstream, "far", "embed-x")],
            "embedding_model": "embed-x",
        }
        async with served(tmp_path_factory.mktemp("data"), **settings) as client:
            yield client


async def project_of(client: Client, name: str) -> tuple[str, str, openai.AsyncOpenAI]:
    """Its id, the id of a key of its own, and a client with that."""
    projects = client().admin.organization.projects
    project = await projects.create(name=name)
    account = await projects.service_accounts.create(project.id, name="app")
    return project.id, account.api_key.id, client(account.api_key.value)


async def store_with_file(app: openai.AsyncOpenAI) -> str:
    file = await app.files.create(file=("a.txt", b"The gate opens."), purpose="assistants")
    store = await app.vector_stores.create(name="s")
    taken_in = await app.vector_stores.files.create_and_poll(
        file.id, vector_store_id=store.id, poll_interval_ms=20
    )
    assert taken_in.status == "completed"
    return store.id


async def test_ingestion_and_searches_are_charged_to_the_caller(client: Client):
    project, key, app = await project_of(client, "reader")
    store = await store_with_file(app)
    usage = client().admin.organization.usage
    wanted: dict[str, Any] = {
        "start_time": int(time.time()) - 120, "project_ids": [project],
        "group_by": ["api_key_id", "model"],
    }  # fmt: skip
    taken_in = await usage.embeddings(**wanted)
    await app.vector_stores.search(store, query="gate")
    searched = await usage.embeddings(**wanted)
    calls = await usage.file_search_calls(start_time=wanted["start_time"], project_ids=[project])

    told = [
        (one.api_key_id, one.model, one.input_tokens)
        for page in (taken_in, searched) for bucket in page.data for one in bucket.results
    ]  # fmt: skip
    assert told == [(key, "embed-x", TOKENS), (key, "embed-x", 2 * TOKENS)]
    assert [one.num_requests for bucket in calls.data for one in bucket.results] == [1]
