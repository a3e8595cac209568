"""Responses and conversations share items, and either gives the context of the next response."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, event

from llm_backend.store import (
    BackgroundStore,
    ConversationStore,
    Database,
    DeliveryLimit,
    Events,
    Jobs,
    Missing,
    ResponseNotInConversation,
    ResponseStore,
    StoredConversation,
    StoredItem,
    StoredResponse,
    UnknownCursor,
    Unstorable,
)


@pytest.fixture
def responses(database: Database) -> ResponseStore:
    return ResponseStore(database)


@pytest.fixture
def background(database: Database) -> BackgroundStore:
    return background_of(database)


def background_of(database: Database) -> BackgroundStore:
    jobs = Jobs(database)
    return BackgroundStore(database, jobs, limit=1, deliveries=DeliveryLimit(waiting=1))


@pytest.fixture
def conversations(database: Database) -> ConversationStore:
    return ConversationStore(database)


def item(id: str, text: str = "") -> StoredItem:
    return StoredItem(id=id, item={"id": id, "type": "message", "text": text})


def response(id: str, *, said: str = "", **fields) -> StoredResponse:
    """A response with one input and one output item, named after it."""
    return StoredResponse(
        id=id, created_at=1, model="m", status="completed", body={"id": id},
        input=[item(f"{id}_in", said)], output=[item(f"{id}_out")], **fields,
    )  # fmt: skip


async def ids(responses: ResponseStore, **before) -> list[str]:
    return [one.id for one in await responses.load_context(**before)]


async def test_response_is_stored_returned_and_deleted(responses, background):
    await responses.add(response("r"))

    assert await responses.get("r") == {"id": "r"}
    await background.delete("r")
    with pytest.raises(Missing):
        await responses.get("r")
    with pytest.raises(Missing):
        await responses.item("r_in")


async def test_response_context_contains_all_previous_items(responses):
    await responses.add(response("a"))
    await responses.add(response("b", previous_id="a"))
    await responses.add(response("c", previous_id="b"))

    assert await ids(responses, previous_id="c") == [
        "a_in", "a_out", "b_in", "b_out", "c_in", "c_out"
    ]  # fmt: skip


async def test_chain_with_a_deleted_response_cannot_be_continued(responses, background):
    await responses.add(response("a"))
    await responses.add(response("b", previous_id="a"))
    await background.delete("a")

    with pytest.raises(Missing) as missing:
        await responses.load_context(previous_id="b")
    assert missing.value.id == "a"


async def test_conversation_gets_the_items_of_its_responses(responses, conversations):
    await conversations.add(StoredConversation(id="conv", created_at=1), [item("first")])
    await responses.add(response("a", conversation_id="conv"))

    assert await ids(responses, conversation_id="conv") == ["first", "a_in", "a_out"]


async def test_context_within_a_conversation_leaves_out_later_items(responses, conversations):
    await conversations.add(StoredConversation(id="conv", created_at=1), [item("first")])
    await responses.add(response("a", conversation_id="conv"))
    await responses.add(response("b", conversation_id="conv"))
    await responses.add(response("c", previous_id="a"))

    assert await ids(responses, previous_id="c") == ["first", "a_in", "a_out", "c_in", "c_out"]


@pytest.mark.parametrize("status", ["failed", "cancelled"])
async def test_response_outside_of_its_conversation_cannot_be_continued(
    responses, conversations, status
):
    await conversations.add(StoredConversation(id="conv", created_at=1), [item("first")])
    await responses.add(replace(response("a", conversation_id="conv"), status=status))

    with pytest.raises(ResponseNotInConversation, match=r"`a`.*`conv`"):
        await responses.load_context(previous_id="a")


@pytest.mark.parametrize("is_background", [False, True])
@pytest.mark.parametrize(
    ("status", "is_appended"),
    [("completed", True), ("incomplete", True), ("failed", False), ("cancelled", False)],
)
async def test_conversation_gets_items_of_every_way_to_answer(
    database, responses, conversations, is_background, status, is_appended
):
    await conversations.add(StoredConversation(id="conv", created_at=1), [])
    ended = replace(response("r", conversation_id="conv"), status=status)
    if is_background:
        await answered_in_background(database, ended)
    else:
        await responses.add(ended)

    page = await conversations.items("conv", order="asc")

    assert [one.id for one in page.items] == (["r_in", "r_out"] if is_appended else [])


async def answered_in_background(database, ended):
    jobs = Jobs(database)
    background = BackgroundStore(database, jobs, limit=1, deliveries=DeliveryLimit(waiting=1))
    queued = replace(ended, status="queued", body={"id": "r", "status": "queued"}, output=[])
    await background.add(queued, {}, Events())
    [job] = await jobs.claim("response", 1, "m")
    body = {"id": "r", "status": ended.status, "output": []}
    await background.finish(job, body, ended.output, Events())


async def test_response_of_a_deleted_conversation_is_not_stored(responses):
    with pytest.raises(Missing):
        await responses.add(response("a", conversation_id="conv"))
    with pytest.raises(Missing):
        await responses.get("a")


async def test_item_is_deleted_with_the_last_object_that_contains_it(
    responses, background, conversations
):
    await conversations.add(StoredConversation(id="conv", created_at=1), [])
    await responses.add(response("a", conversation_id="conv"))
    await background.delete("a")
    kept = await responses.item("a_in")
    await conversations.delete("conv")

    assert kept.id == "a_in"
    with pytest.raises(Missing):
        await responses.item("a_in")


async def test_unchanged_item_is_reused_and_a_changed_one_is_new(conversations):
    await conversations.add(StoredConversation(id="conv", created_at=1), [item("x", "as it was")])
    await conversations.add(StoredConversation(id="next", created_at=1), [])
    (same,) = await conversations.add_items("next", [item("x", "as it was")])
    (other,) = await conversations.add_items("conv", [item("x", "changed")])

    assert same.id == "x"
    assert other.id != "x"
    assert other.item["id"] == other.id
    assert other.item["text"] == "changed"


async def test_many_items_are_appended_without_a_statement_of_as_many_parameters(
    conversations, database
):
    counts: list[int] = []

    def count(
        _connection: object, _cursor: object, statement: str, values: Any, *_: object
    ) -> None:
        if statement.startswith("SELECT"):
            counts.append(len(values))

    await conversations.add(StoredConversation(id="conv", created_at=1), [])
    event.listen(Engine, "before_cursor_execute", count)
    try:
        added = [item(f"i{place}") for place in range(1200)]
        returned = await conversations.add_items("conv", added)
    finally:
        event.remove(Engine, "before_cursor_execute", count)

    assert [one.id for one in returned] == [one.id for one in added]
    assert 1 < max(counts) < 600


async def test_items_are_paginated_in_both_orders(conversations):
    said = [item(f"i{place}") for place in range(5)]
    await conversations.add(StoredConversation(id="conv", created_at=1), said)
    first = await conversations.items("conv", limit=2, order="asc")
    rest = await conversations.items("conv", after="i1", limit=9, order="asc")
    newest = await conversations.items("conv", limit=2)

    assert ([one.id for one in first.items], first.has_more) == (["i0", "i1"], True)
    assert ([one.id for one in rest.items], rest.has_more) == (["i2", "i3", "i4"], False)
    assert [one.id for one in newest.items] == ["i4", "i3"]
    with pytest.raises(UnknownCursor):
        await conversations.items("conv", after="elsewhere")


async def test_item_is_removed_from_its_conversation(conversations):
    said = [item("x"), item("y")]
    await conversations.add(StoredConversation(id="conv", created_at=1), said)
    await conversations.delete_item("conv", "x")

    assert [one.id for one in (await conversations.items("conv")).items] == ["y"]
    with pytest.raises(Missing):
        await conversations.item("conv", "x")


async def test_conversation_metadata_is_replaced_and_limited(conversations):
    await conversations.add(StoredConversation(id="conv", created_at=1, metadata={"a": "1"}), [])
    changed = await conversations.update_metadata("conv", {"b": "2"})

    assert changed.metadata == {"b": "2"}
    with pytest.raises(Unstorable):
        await conversations.update_metadata("conv", {"b": "2" * 513})


async def test_unstorable_item_ids_are_refused(conversations):
    with pytest.raises(Unstorable):
        await conversations.add(StoredConversation(id="conv", created_at=1), [item("\0")])
    with pytest.raises(Missing):
        await conversations.get("\ud800")


async def test_item_that_a_conversation_contains_already_gets_a_new_id(conversations):
    said = [item("a"), item("b"), item("a"), item("c")]
    await conversations.add(StoredConversation(id="conv", created_at=1), said[:2])
    await conversations.add_items("conv", said[2:])

    walked: list[str] = []
    while (page := await walk_on(conversations, walked)).items:
        walked += [one.id for one in page.items]

    assert [id.partition("_")[0] for id in walked] == ["a", "b", "a", "c"]
    assert len(set(walked)) == 4


async def walk_on(conversations, walked):
    after = walked[-1] if walked else None
    return await conversations.items("conv", after=after, limit=1, order="asc")


async def test_item_that_is_twice_in_one_input_gets_a_new_id(responses):
    said = [item("a"), item("b"), item("a"), item("c")]
    await responses.add(replace(response("r"), input=said))

    page = await responses.input("r", order="asc")

    assert [one.id.partition("_")[0] for one in page.items] == ["a", "b", "a", "c"]
    assert len({one.id for one in page.items}) == 4
    assert page.items[2].item["id"] == page.items[2].id


async def test_concurrent_inserts_of_one_item_share_it(database, kind, request):
    url = request.getfixturevalue(f"{kind}_url")
    async with Database.open(url) as other:
        both = (ResponseStore(database), ResponseStore(other))
        for number in range(10):
            said = [item(f"i{number}"), item(f"j{number}")]
            await asyncio.gather(
                *(
                    one.add(replace(response(f"r{number}_{place}"), input=said))
                    for place, one in enumerate(both)
                )
            )

            pages = [await one.input(f"r{number}_{place}") for place, one in enumerate(both)]
            assert pages[0].items == pages[1].items == said[::-1]


async def test_item_is_reused_while_another_process_deletes_it(database, kind, request):
    url = request.getfixturevalue(f"{kind}_url")
    async with Database.open(url) as other:
        for number in range(10):
            said = [item(f"i{number}")]
            before, after = f"before{number}", f"after{number}"
            await ResponseStore(database).add(replace(response(before), input=said))

            await asyncio.gather(
                background_of(database).delete(before),
                ResponseStore(other).add(replace(response(after), input=said)),
            )

            assert (await ResponseStore(database).input(after)).items == said
