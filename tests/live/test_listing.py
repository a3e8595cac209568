"""Every list that is answered here: pages both ways, cursors, bounds, filters, ids by their kind.

A list operation of the document that is answered here and is not in `LISTS` fails a test: give it a
row, with what fills it and which ids it holds then.
"""

import asyncio
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from llm_backend.access.authentication.key_admin import create_key
from llm_backend.contract import load_document
from llm_backend.store import Database
from llm_backend.store.administration import Administration
from tests.engine.gguf_models import write_bert
from tests.engine.pocket_voice import write_pocket_voice
from tests.media_files import wav
from tests.serving import serve
from tests.strict_sdk import StrictOpenAI

COUNT = 5


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A list that holds `COUNT` things or more: where it is, and their ids, the oldest first.
    `also` is asked for with every page. Each of `filters` leaves in some of the ids."""

    path: str
    ids: Sequence[str]
    also: dict[str, str] = field(default_factory=dict)
    filters: Sequence[tuple[dict[str, str], Sequence[str]]] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """One list: how it is filled, the prefix of its ids, and its default order."""

    fill: Callable[[openai.OpenAI], Filled]
    prefix: str
    order: str = "desc"


def chats(client: openai.OpenAI) -> Filled:
    made = [
        client.chat.completions.create(
            model="builtin" if number % 2 else "alias",
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=1,
            metadata={"number": str(number % 2), "list": "chats"},
        )
        for number in range(COUNT)
    ]
    ids = [chat.id for chat in made]
    return Filled(
        path="/chat/completions",
        ids=ids,
        also={"metadata[list]": "chats"},
        filters=[
            ({"model": "alias"}, ids[::2]),
            ({"metadata[number]": "1"}, ids[1::2]),
            ({"model": "unknown"}, []),
        ],
    )


def found_chats(client: openai.OpenAI) -> Filled:
    made = [
        client.chat.completions.create(
            model="builtin",
            messages=[{"role": "user", "content": f"Sunflower {number}"}],
            max_tokens=1,
            metadata={"list": "found", "number": str(number % 2)},
        )
        for number in range(COUNT)
    ]
    ids = [chat.id for chat in made]
    return Filled(
        path="/chat/search",
        ids=ids,
        also={"query": "sunflower", "metadata[list]": "found"},
        filters=[({"metadata[number]": "1"}, ids[1::2]), ({"query": "nothing"}, [])],
    )


def messages(client: openai.OpenAI) -> Filled:
    said = [{"role": "user", "content": str(number)} for number in range(COUNT)]
    chat = client.chat.completions.create(model="builtin", messages=said, max_tokens=1)
    ids = [message.id for message in client.chat.completions.messages.list(chat.id)]
    return Filled(path=f"/chat/completions/{chat.id}/messages", ids=ids)


def inputs(client: openai.OpenAI) -> Filled:
    said = [{"role": "user", "content": str(number)} for number in range(COUNT)]
    response = client.responses.create(model="builtin", input=said, max_output_tokens=16)
    items = list(client.responses.input_items.list(response.id, order="asc"))
    assert [item.content[0].text for item in items] == [one["content"] for one in said]
    return Filled(path=f"/responses/{response.id}/input_items", ids=[item.id for item in items])


def conversation_items(client: openai.OpenAI) -> Filled:
    said = [{"role": "user", "content": str(number)} for number in range(COUNT)]
    conversation = client.conversations.create(items=said)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    return Filled(path=f"/conversations/{conversation.id}/items", ids=[item.id for item in items])


def files(client: openai.OpenAI) -> Filled:
    made = [
        client.files.create(file=(f"{number}.txt", b"text"), purpose=purpose)
        for number, purpose in enumerate(["evals", "user_data", "evals", "user_data", "evals"])
    ]
    ids = [file.id for file in made]
    filled = as_listed("/files", order="asc")(client)
    assert list(filled.ids)[-COUNT:] == ids
    filters = [({"purpose": "evals"}, ids[::2]), ({"purpose": "x"}, [])]
    return replace(filled, also={}, filters=filters)


def batches(client: openai.OpenAI) -> Filled:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {}}
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    made = [
        client.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        for _ in range(COUNT)
    ]
    return Filled(path="/batches", ids=[batch.id for batch in made])


def stores(client: openai.OpenAI) -> Filled:
    made = [client.vector_stores.create(name=str(number)) for number in range(COUNT)]
    filled = as_listed("/vector_stores", order="asc")(client)
    assert list(filled.ids)[-COUNT:] == [store.id for store in made]
    return replace(filled, also={})


def files_in_a_store(client: openai.OpenAI, *, in_a_batch: bool) -> Filled:
    """Files of which one cannot be read."""
    store = client.vector_stores.create(name="files")
    texts = [b"the cat", b"the dog", b"the cat sat", b"\x00\x01\x02", b"the dog sat"]
    names = ["a.txt", "b.txt", "c.txt", "d.pdf", "e.txt"]
    ids = [
        client.files.create(file=(name, text), purpose="user_data").id
        for name, text in zip(names, texts, strict=True)
    ]
    path = f"/vector_stores/{store.id}"
    if in_a_batch:
        batch = client.vector_stores.file_batches.create(store.id, file_ids=ids)
        path = f"{path}/file_batches/{batch.id}"
    else:
        for id in ids:
            client.vector_stores.files.create(store.id, file_id=id)
    while client.vector_stores.retrieve(store.id).file_counts.in_progress:
        time.sleep(0.02)
    good = [id for id in ids if id != ids[3]]
    filters = [({"filter": "failed"}, [ids[3]]), ({"filter": "completed"}, good)]
    return Filled(path=f"{path}/files", ids=ids, filters=filters)


def made_at(path: str, *bodies: dict[str, Any]) -> Callable[[openai.OpenAI], Filled]:
    """Fills a list with what its own address makes of these bodies."""

    def fill(client: openai.OpenAI) -> Filled:
        made = [client.post(path, body=body, cast_to=object) for body in bodies]
        return Filled(path=path, ids=[one["id"] for one in made])

    return fill


def named(path: str) -> Callable[[openai.OpenAI], Filled]:
    return made_at(path, *({"name": f"number {number}"} for number in range(COUNT)))


def alerts(path: str) -> Callable[[openai.OpenAI], Filled]:
    channel = {"type": "email", "recipients": ["ops@example.org"]}
    alert = {"currency": "USD", "interval": "month", "notification_channel": channel}
    return made_at(path, *({**alert, "threshold_amount": amount} for amount in range(COUNT)))


def invites(client: openai.OpenAI) -> Filled:
    addresses = [f"guest{number}@example.org" for number in range(COUNT)]
    fill = made_at(
        "/organization/invites", *({"email": one, "role": "reader"} for one in addresses)
    )
    return fill(client)


def projects(client: openai.OpenAI) -> Filled:
    named(PROJECTS)(client)
    filled = as_listed(PROJECTS)(client)
    _default, gone, *_ = filled.ids
    client.post(f"{PROJECTS}/{gone}/archive", cast_to=object)
    left = [one for one in filled.ids if one != gone]
    with_gone = {"include_archived": "true"}
    return replace(filled, also=with_gone, filters=[({"include_archived": "false"}, left)])


def a_project(client: openai.OpenAI) -> str:
    project = client.post("/organization/projects", body={"name": "own"}, cast_to=object)
    return f"/organization/projects/{project['id']}"


def service_accounts(client: openai.OpenAI) -> Filled:
    return named(f"{a_project(client)}/service_accounts")(client)


def project_keys(client: openai.OpenAI) -> Filled:
    project = a_project(client)
    made = [
        client.post(f"{project}/service_accounts", body={"name": str(number)}, cast_to=object)
        for number in range(COUNT)
    ]
    return Filled(path=f"{project}/api_keys", ids=[one["api_key"]["id"] for one in made])


def as_listed(path: str, **also: str) -> Callable[[openai.OpenAI], Filled]:
    """A list that something else fills, as one page shows it, the oldest first."""

    def fill(client: openai.OpenAI) -> Filled:
        listed = client.get(path, cast_to=object, options={"params": {**also, "limit": 100}})
        return Filled(path=path, ids=[one["id"] for one in listed["data"]], also=also)

    return fill


def audit_logs(client: openai.OpenAI) -> Filled:
    filled = as_listed("/organization/audit_logs", **{"event_types[]": "project.created"})(client)
    return replace(filled, ids=filled.ids[::-1])


def project_users(client: openai.OpenAI) -> Filled:
    project = a_project(client)
    users = as_listed("/organization/users")(client)
    bodies = ({"user_id": one, "role": "member"} for one in users.ids)
    return made_at(f"{project}/users", *bodies)(client)


def webhook_endpoints(client: openai.OpenAI) -> Filled:
    body = {"url": "https://example.org/", "event_types": ["batch.completed"]}
    bodies = ({**body, "name": f"number {number}"} for number in range(COUNT))
    return made_at("/webhook_endpoints", *bodies)(client)


def voice_consents(client: openai.OpenAI) -> Filled:
    create = client.audio.voice_consents.create
    made = [
        create(name=f"number {number}", language="en", recording=("yes.wav", wav()))
        for number in range(COUNT)
    ]
    return Filled(path="/audio/voice_consents", ids=[one.id for one in made])


ALERTS = "/organization/spend_alerts"
PROJECTS = "/organization/projects"
LISTS = {
    "listBatches": Listing(fill=batches, prefix="batch_"),
    "admin-api-keys-list": Listing(
        fill=named("/organization/admin_api_keys"), prefix="key_", order="asc"
    ),
    "list-invites": Listing(fill=invites, prefix="invite-", order="asc"),
    "list-project-api-keys": Listing(fill=project_keys, prefix="key_", order="asc"),
    "list-project-rate-limits": Listing(
        fill=as_listed(f"{PROJECTS}/proj_default/rate_limits"), prefix="rl-", order="asc"
    ),
    "list-project-service-accounts": Listing(
        fill=service_accounts, prefix="svc_acct_", order="asc"
    ),
    "list-project-spend-alerts": Listing(
        fill=alerts(f"{PROJECTS}/proj_default/spend_alerts"), prefix="alert_", order="asc"
    ),
    "list-project-users": Listing(fill=project_users, prefix="user-", order="asc"),
    "list-organization-spend-alerts": Listing(fill=alerts(ALERTS), prefix="alert_", order="asc"),
    "list-users": Listing(fill=as_listed("/organization/users"), prefix="user-", order="asc"),
    "listChatCompletions": Listing(fill=chats, prefix="chatcmpl-", order="asc"),
    "searchChatCompletions": Listing(fill=found_chats, prefix="chatcmpl-"),
    "getChatCompletionMessages": Listing(fill=messages, prefix="chatcmpl-", order="asc"),
    "listInputItems": Listing(fill=inputs, prefix="msg_"),
    "listConversationItems": Listing(fill=conversation_items, prefix="msg_"),
    "listVectorStoreFiles": Listing(
        fill=functools.partial(files_in_a_store, in_a_batch=False), prefix="file-"
    ),
    "listFilesInVectorStoreBatch": Listing(
        fill=functools.partial(files_in_a_store, in_a_batch=True), prefix="file-"
    ),
    "listVectorStores": Listing(fill=stores, prefix="vs_"),
    "listWebhookEndpoints": Listing(fill=webhook_endpoints, prefix="we_"),
    "listVoiceConsents": Listing(fill=voice_consents, prefix="cons_"),
    "listFiles": Listing(fill=files, prefix="file-"),
    "list-projects": Listing(fill=projects, prefix="proj_", order="asc"),
    "list-audit-logs": Listing(fill=audit_logs, prefix="audit_log-"),
}


@functools.cache
def paths() -> dict[str, Any]:
    """The paths of the document."""
    found: dict[str, Any] = json.loads(load_document().text())["paths"]
    return found


@functools.cache
def parameters(name: str) -> dict[str, Any]:
    """The query parameters of an operation, by name."""
    operation = load_document().operations[name]
    described = paths()[operation.path][operation.method.lower()]
    return {
        one["name"]: one["schema"]
        for one in described.get("parameters", [])
        if one.get("in") == "query"
    }


every_list = pytest.mark.parametrize("name", LISTS)


@pytest.fixture(scope="module")
def lister(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of a server with several models, users and a key that may do everything."""
    folder, key = tmp_path_factory.mktemp("listing"), "sk-listing"
    files = [write_bert(folder / f"{name}.gguf") for name in ("embeds", "b", "c", "d")]
    voice, projector = write_pocket_voice(folder / "pocket")  # its consents are listed
    models = ["builtin", *map(str, files), {"path": str(voice), "mmproj": str(projector)}]
    (folder / "config.yaml").write_text(yaml.safe_dump({"models": models, "aliases": ["alias"]}))
    flags = ["--config", str(folder / "config.yaml")]
    with (
        serve(folder, *flags, environment={"LLM_BACKEND_API_KEYS": key}) as served,
        StrictOpenAI(base_url=served.base_url, api_key=key, max_retries=0) as client,
    ):
        asyncio.run(make_users(folder))
        yield client


async def make_users(folder: Path) -> None:
    async with Database.open(f"sqlite:///{folder / 'llm-backend.sqlite3'}") as database:
        for number in range(COUNT):
            email = f"user{number}@example.org"
            await create_key(Administration(database), "laptop", email=email)


@pytest.fixture(scope="module")
def filled(lister: openai.OpenAI) -> Callable[[str], Filled]:
    """The list of an operation. All are filled before the first is read, in the order of their
    rows: what fills one may show in another."""
    return {name: listing.fill(lister) for name, listing in LISTS.items()}.__getitem__


@pytest.fixture
def page(lister: openai.OpenAI, filled) -> Callable[..., dict[str, Any]]:
    """One page of an operation's list."""

    def get(name: str, **query: Any) -> dict[str, Any]:
        listing = filled(name)
        asked = {"params": {**listing.also, **query}}
        return lister.get(listing.path, cast_to=object, options=asked)

    return get


def test_every_list_that_is_answered_here_has_a_row():
    local = [one for one in load_document().operations.values() if one.answered_by == "local"]
    lists = {
        one.operation_id
        for one in local
        if one.method == "GET" and "after" in parameters(one.operation_id)
    }

    assert lists == set(LISTS)


def walked(page, name: str, cursor: str = "after", **query: Any) -> list[str]:
    """The ids of all pages, one after the other; those before `before` from its own on."""
    seen, place = [], {}
    while True:
        answer = page(name, **{**query, **place})
        ids = [one["id"] for one in answer["data"]]
        if "first_id" in answer:
            assert (answer["first_id"], answer["last_id"]) == (ids[0], ids[-1])
        seen = seen + ids if cursor == "after" else ids + seen
        if not answer["has_more"]:
            return seen
        assert len(ids) == query["limit"]
        place = {cursor: ids[-1] if cursor == "after" else ids[0]}


def orders(name: str) -> Sequence[str]:
    """The orders that can be asked for, or the one that there is."""
    return ("asc", "desc") if "order" in parameters(name) else (LISTS[name].order,)


def asked_in(name: str, order: str) -> dict[str, str]:
    return {"order": order} if "order" in parameters(name) else {}


@every_list
def test_pages_hold_everything_once_in_every_order(page, filled, name):
    ids = list(filled(name).ids)
    for order in orders(name):
        expected, asked = ids if order == "asc" else ids[::-1], asked_in(name, order)

        assert walked(page, name, limit=2, **asked) == expected
        assert walked(page, name, limit=len(ids), **asked) == expected
    unasked = [one["id"] for one in page(name, limit=len(ids))["data"]]
    assert unasked == (ids if LISTS[name].order == "asc" else ids[::-1])


@pytest.mark.parametrize("name", [name for name in LISTS if "before" in parameters(name)])
def test_pages_go_backwards_too(page, filled, name):
    ids = list(filled(name).ids)
    for order in orders(name):
        expected, asked = ids if order == "asc" else ids[::-1], asked_in(name, order)
        answer = page(name, before=expected[3], limit=2, **asked)

        assert [one["id"] for one in answer["data"]] == expected[1:3]
        assert answer["has_more"]
        before = walked(page, name, "before", before=expected[-1], limit=2, **asked)
        assert before == expected[:-1]


@every_list
def test_ids_begin_like_their_kind(filled, name):
    ids = filled(name).ids

    assert len(set(ids)) == len(ids) >= COUNT
    assert [id for id in ids if not id.startswith(LISTS[name].prefix)] == []


@every_list
def test_filters_leave_in_what_they_name(page, filled, name):
    for query, ids in filled(name).filters:
        for order in orders(name):
            answer = page(name, **query, **asked_in(name, order))

            expected = list(ids) if order == "asc" else list(ids)[::-1]
            assert [one["id"] for one in answer["data"]] == expected
            assert not answer["has_more"]


@every_list
def test_unknown_cursors_and_limits_out_of_bounds_are_refused(page, name):
    taken = parameters(name)
    wrong = [{"after": "unknown"}, {"limit": taken["limit"].get("minimum", 0) - 1}]
    if "maximum" in taken["limit"]:
        wrong.append({"limit": taken["limit"]["maximum"] + 1})
    if "order" in taken:
        wrong.append({"order": "sideways"})
    for query in wrong:
        with pytest.raises(openai.APIStatusError) as caught:
            page(name, **query)

        assert (caught.value.status_code, caught.value.param) == (400, next(iter(query)))
