"""Objects of one project are hidden from others: every kind of object, by every operation that
clients have."""

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_backend.store import (
    BackgroundStore,
    ConversationStore,
    Database,
    DeliveryLimit,
    Jobs,
    Missing,
    Owner,
    ResponseStore,
    StoredConversation,
    StoredItem,
    StoredResponse,
    as_owner,
)
from llm_backend.store.vector_stores import StoredVectorStore, VectorStores
from tests.controllers.administration.conftest import Client, relaying_client, served

Official = openai.AsyncOpenAI
HI: list[Any] = [{"role": "user", "content": "hi"}]
LINE = (
    b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions",'
    b'"body":{"model":"gpt-x","messages":[{"role":"user","content":"hi"}]}}'
)


async def make_file(client: Official) -> str:
    return (await client.files.create(file=("a.jsonl", LINE), purpose="batch")).id


async def make_upload(client: Official) -> str:
    made = await client.uploads.create(
        bytes=1, filename="a", mime_type="text/plain", purpose="assistants"
    )
    return made.id


async def make_chat(client: Official) -> str:
    await client.chat.completions.create(model="gpt-x", messages=HI, store=True)
    return (await client.chat.completions.list()).data[0].id


async def make_conversation(client: Official) -> str:
    return (await client.conversations.create(items=[{"role": "user", "content": "hi"}])).id


async def make_batch(client: Official) -> str:
    file_id = await make_file(client)
    made = await client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return made.id


async def make_webhook(client: Official) -> str:
    made = await client.webhooks.create(
        name="a", url="https://example.org/", event_types=["batch.failed"]
    )
    return made.id


KINDS: dict[str, tuple[Callable[[Official], Awaitable[str]], list[str]]] = {
    "file": (make_file, ["files.retrieve", "files.content", "files.delete"]),
    "upload": (make_upload, ["uploads.cancel"]),
    "chat": (
        make_chat,
        ["chat.completions.retrieve", "chat.completions.messages.list", "chat.completions.delete"],
    ),
    "conversation": (
        make_conversation,
        ["conversations.retrieve", "conversations.items.list", "conversations.delete"],
    ),
    "batch": (make_batch, ["batches.retrieve", "batches.cancel"]),
    "webhook": (
        make_webhook,
        ["webhooks.retrieve", "webhooks.update", "webhooks.rotate_secret", "webhooks.delete"],
    ),
}
LISTS = {
    "file": "files.list",
    "chat": "chat.completions.list",
    "batch": "batches.list",
    "webhook": "webhooks.list",
}


def method(client: Official, path: str) -> Any:
    found: Any = client
    for name in path.split("."):
        found = getattr(found, name)
    return found


async def clients_of(client: Client) -> tuple[Official, Official, Official]:
    """Clients of two projects, and of the default one."""
    projects = client().admin.organization.projects
    keys = []
    for name in ("one", "two"):
        project = await projects.create(name=name)
        account = await projects.service_accounts.create(project.id, name=name)
        keys.append(account.api_key.value)
    return client(keys[0]), client(keys[1]), client()


@pytest.mark.parametrize("is_relaying", [True, False])
async def test_objects_of_one_project_are_hidden_from_others(tmp_path: Path, is_relaying: bool):
    async with (relaying_client if is_relaying else served)(tmp_path) as client:
        mine, theirs, default = await clients_of(client)
        kinds = {"chat"} if is_relaying else KINDS.keys() - {"chat"}  # an upstream answers it here
        for kind in kinds:
            make, ways = KINDS[kind]
            id = await make(mine)
            for other in (theirs, default):
                for way in ways:
                    with pytest.raises(openai.APIStatusError) as refused:
                        await method(other, way)(id)
                    assert refused.value.status_code in (404, 405), (kind, way)
            for way in ways[:-1] or ways:
                await method(mine, way)(id)
        for way in [LISTS[kind] for kind in kinds & LISTS.keys()]:
            assert [one async for one in method(theirs, way)()] == [], way
            assert [one async for one in method(mine, way)()] != [], way


async def test_objects_from_before_projects_belong_to_the_default_project(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        _, theirs, default = await clients_of(client)
        id = await make_file(default)
        with pytest.raises(openai.APIStatusError):
            await theirs.batches.create(
                input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h"
            )
        found = await default.files.retrieve(id)

    assert found.id == id


def response(id: str, **more: Any) -> StoredResponse:
    item = StoredItem(id=f"msg_{id}", item={"id": f"msg_{id}", "type": "message"})
    given = {
        "id": id,
        "created_at": int(time.time()),
        "model": "m",
        "status": "completed",
        "body": {"id": id, "output": []},
        "input": [item],
        "output": [],
    }
    return StoredResponse(**{**given, **more})


Way = Callable[[], Awaitable[Any]]


async def assert_seen_by_one(mine: Owner, theirs: Owner, ways: Sequence[Way]) -> None:
    """Each way to an object finds it as one owner, and raises `Missing` as the other."""
    for way in ways:
        with as_owner(theirs), pytest.raises(Missing):
            await way()
    with as_owner(mine):
        for way in ways:
            await way()


async def test_responses_of_another_project_cannot_be_continued(database: Database):
    responses, conversations = ResponseStore(database), ConversationStore(database)
    background = BackgroundStore(
        database, Jobs(database), limit=1, deliveries=DeliveryLimit(waiting=1)
    )
    mine, theirs = Owner(id="proj_1"), Owner.default_project()
    with as_owner(mine):
        await responses.add(response("resp_1"))
        await responses.add(response("resp_2", previous_id="resp_1"))
        await conversations.add(StoredConversation(id="conv_1", created_at=1, metadata={}), [])

    ways: list[Way] = [
        lambda: responses.get("resp_1"),
        lambda: responses.input("resp_1"),
        lambda: responses.load_context(previous_id="resp_2"),
        lambda: responses.load_context(conversation_id="conv_1"),
        lambda: responses.item("msg_resp_1"),
        lambda: background.delete("resp_1"),
        lambda: conversations.get("conv_1"),
    ]
    await assert_seen_by_one(mine, theirs, ways)


async def test_work_without_an_owner_finds_all_objects(database: Database):
    responses = ResponseStore(database)
    with as_owner(Owner(id="proj_1")):
        await responses.add(response("resp_1"))

    assert await responses.get("resp_1")


async def test_vector_store_and_its_files_belong_to_one_project(database: Database):
    stores = VectorStores(database, Jobs(database, lease_s=60))
    mine, theirs = Owner(id="proj_1"), Owner(id="proj_2")
    with as_owner(mine):
        await stores.add(
            StoredVectorStore(
                id="vs_1", created_at=1, name="a", last_active_at=int(time.time()),
                embedding_model="m",
            ),
            [],
        )  # fmt: skip

    ways: list[Way] = [
        lambda: stores.get("vs_1"),
        lambda: stores.files("vs_1", after=None, before=None, limit=20, order="asc", status=None),
        lambda: stores.update("vs_1", {"name": "b"}),
        lambda: stores.delete("vs_1"),
    ]
    await assert_seen_by_one(mine, theirs, ways)
