"""Every list that is answered here: pages both ways, cursors, bounds, filters, ids by their kind.

A list operation of the document that is answered here and is not in `LISTS` fails a test: give it a
row, with what fills it and which ids it holds then.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from llm_backend.contract import load_document
from tests.serving import serve

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
    """How a list is filled, what its ids begin with, and in which order it comes unasked."""

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
            ({"model": "nobody"}, []),
        ],
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
        for number, purpose in enumerate(["evals", "vision", "evals", "vision", "evals"])
    ]
    ids = [file.id for file in made]
    return Filled(
        path="/files", ids=ids, filters=[({"purpose": "evals"}, ids[::2]), ({"purpose": "x"}, [])]
    )


LISTS = {
    "listChatCompletions": Listing(fill=chats, prefix="chatcmpl-", order="asc"),
    "getChatCompletionMessages": Listing(fill=messages, prefix="chatcmpl-", order="asc"),
    "listInputItems": Listing(fill=inputs, prefix="msg_"),
    "listConversationItems": Listing(fill=conversation_items, prefix="msg_"),
    "listFiles": Listing(fill=files, prefix="file-"),
}

every_list = pytest.mark.parametrize("name", LISTS)


@pytest.fixture(scope="module")
def lister(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with (
        serve(tmp_path_factory.mktemp("listing"), "--alias", "alias") as served,
        openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def filled(lister: openai.OpenAI) -> Callable[[str], Filled]:
    """The list of an operation, filled at its first use."""
    return functools.cache(lambda name: LISTS[name].fill(lister))


@pytest.fixture
def page(lister: openai.OpenAI, filled) -> Callable[..., dict[str, Any]]:
    """One page of an operation's list."""

    def get(name: str, **query: Any) -> dict[str, Any]:
        listing = filled(name)
        asked = {"params": {**listing.also, **query}}
        return lister.get(listing.path, cast_to=object, options=asked)

    return get


def parameters(name: str) -> dict[str, Any]:
    """The query parameters of an operation, by name."""
    document = json.loads(load_document().text())
    operation = load_document().operations[name]
    described = document["paths"][operation.path][operation.method.lower()]
    return {
        one["name"]: one["schema"]
        for one in described.get("parameters", [])
        if one.get("in") == "query"
    }


def test_every_list_that_is_answered_here_has_a_row():
    local = [one for one in load_document().operations.values() if one.answered == "local"]
    lists = {
        one.operation_id
        for one in local
        if one.method == "GET" and "after" in parameters(one.operation_id)
    }

    assert lists == set(LISTS)


def walked(page, name: str, **query: Any) -> list[str]:
    """The ids of all pages, one after the other."""
    seen, after = [], {}
    while True:
        answer = page(name, **query, **after)
        ids = [one["id"] for one in answer["data"]]
        assert (answer["first_id"], answer["last_id"]) == (ids[0], ids[-1])
        seen += ids
        if not answer["has_more"]:
            return seen
        assert len(ids) == query["limit"]
        after = {"after": answer["last_id"]}


@every_list
def test_pages_hold_everything_once_in_either_order(page, filled, name):
    ids = list(filled(name).ids)

    assert walked(page, name, limit=2, order="asc") == ids
    assert walked(page, name, limit=2, order="desc") == ids[::-1]
    assert walked(page, name, limit=COUNT, order="asc") == ids
    unasked = [one["id"] for one in page(name)["data"]]
    assert unasked == (ids if LISTS[name].order == "asc" else ids[::-1])


@every_list
def test_ids_begin_like_their_kind(filled, name):
    ids = filled(name).ids

    assert len(set(ids)) == len(ids) >= COUNT
    assert all(id.startswith(LISTS[name].prefix) for id in ids)


@every_list
def test_filters_leave_in_what_they_name(page, filled, name):
    for query, ids in filled(name).filters:
        for order, expected in (("asc", list(ids)), ("desc", list(ids)[::-1])):
            answer = page(name, **query, order=order)

            assert [one["id"] for one in answer["data"]] == expected
            assert not answer["has_more"]


@every_list
def test_a_cursor_that_is_none_and_a_limit_out_of_bounds_are_told(page, name):
    most = parameters(name)["limit"].get("maximum", 100)
    for query in ({"after": "nobody"}, {"limit": 0}, {"limit": most + 1}, {"order": "sideways"}):
        with pytest.raises(openai.APIStatusError) as caught:
            page(name, **query)

        assert (caught.value.status_code, caught.value.param) == (400, next(iter(query)))
