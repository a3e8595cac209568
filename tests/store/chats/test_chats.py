"""Stored chats are returned as they were stored, and are found, changed and deleted."""

import asyncio

import pytest
from sqlalchemy import Engine, event

from llm_backend.store import (
    ChatStatus,
    ChatStore,
    Database,
    Duplicate,
    MetadataChanged,
    Missing,
    NewChat,
    Owner,
    UnknownCursor,
    Unstorable,
    as_owner,
    migrate,
)
from tests.store.chat_values import a_chat, some_messages


async def test_chat_is_returned_as_it_was_stored(chats):
    chat = a_chat(metadata={"topic": "greeting", "mood": ""}, owner="key_1")

    await chats.add(chat, some_messages())

    assert await chats.get(chat.id) == chat


async def test_interrupted_chat_is_incomplete(chats):
    chat = a_chat(status=ChatStatus.INCOMPLETE)

    await chats.add(chat, some_messages())

    assert (await chats.get(chat.id)).status is ChatStatus.INCOMPLETE


@pytest.mark.parametrize(
    "content",
    ["\0", "half a \ud83d pair", "👋 \u2028", 10**30, 1.0, 1e-7, None, {"b": 1, "a": [{}]}],
    ids=repr,
)
async def test_chat_body_is_returned_without_loss(chats, content):
    message = {"role": "user", "content": content}
    chat = a_chat(request={"x": content}, response={"choices": [content]})

    await chats.add(chat, [message])

    assert repr(await chats.get(chat.id)) == repr(chat)
    assert repr((await chats.messages(chat.id)).items[0].message) == repr(message)


async def test_keys_of_a_chat_body_keep_their_order(chats):
    chat = a_chat(response={"zebra": 1, "id": 2, "aa": 3})

    await chats.add(chat, [])

    assert list((await chats.get(chat.id)).response) == ["zebra", "id", "aa"]


async def test_chat_messages_are_paginated_and_have_ids(chats):
    chat = a_chat()
    await chats.add(chat, some_messages(5))

    first = await chats.messages(chat.id, limit=2)
    second = await chats.messages(chat.id, limit=3, after=first.last_id)
    backwards = await chats.messages(chat.id, limit=2, after=second.last_id, order="desc")

    assert [item.id for item in first.items] == [f"{chat.id}-0", f"{chat.id}-1"]
    assert [item.message for item in second.items] == some_messages(5)[2:]
    assert (first.has_more, second.has_more) == (True, False)
    assert [item.id for item in backwards.items] == [f"{chat.id}-3", f"{chat.id}-2"]


async def test_chat_may_have_no_messages(chats):
    chat = a_chat()
    await chats.add(chat, [])

    page = await chats.messages(chat.id)

    assert (list(page.items), page.first_id, page.last_id, page.has_more) == ([], None, None, False)


async def test_chat_id_is_unique(chats):
    chat = a_chat()
    await chats.add(chat, [])

    with pytest.raises(Duplicate, match=chat.id):
        await chats.add(a_chat(id=chat.id, model="other"), [])
    assert (await chats.get(chat.id)).model == chat.model


async def test_chats_added_together_are_stored_like_single_ones(chats):
    added = [NewChat(chat=a_chat(metadata={"user": "ann"}), messages=some_messages(number))
             for number in (2, 0, 1)]  # fmt: skip

    assert await chats.add_unless_taken(added) == []

    assert list((await chats.list()).items) == [one.chat for one in added]
    for one in added:
        page = await chats.messages(one.chat.id)
        assert [item.message for item in page.items] == list(one.messages)


async def test_adding_many_chats_prepares_few_statements(chats):
    statements = set()

    def seen(connection, cursor, statement, *_) -> None:
        if statement.startswith("INSERT"):
            statements.add(statement)

    event.listen(Engine, "before_cursor_execute", seen)
    try:
        for count in range(1, 60, 2):
            await chats.add_unless_taken(
                [NewChat(chat=a_chat(id=f"c{count}-{one}"), messages=[]) for one in range(count)]
            )
    finally:
        event.remove(Engine, "before_cursor_execute", seen)

    assert len(statements) <= 20  # the driver keeps each, with room for all of its rows


async def test_chats_with_taken_ids_are_left_out_and_their_ids_returned(chats):
    taken, fresh = a_chat(), a_chat()
    await chats.add(taken, [])

    added = [NewChat(chat=chat, messages=some_messages(1)) for chat in (taken, fresh, fresh)]

    assert await chats.add_unless_taken(added) == [taken.id, fresh.id]
    assert list((await chats.list()).items) == [taken, fresh]
    assert len((await chats.messages(fresh.id)).items) == 1


async def test_each_of_many_added_chats_has_its_own_messages_if_some_ids_are_taken(chats):
    added = [NewChat(chat=a_chat(), messages=[{"role": "user", "content": f"{number}"}])
             for number in range(150)]  # fmt: skip
    taken = [added[place].chat.id for place in (0, 7, 70, 149)]
    for id in taken:
        await chats.add(a_chat(id=id), [])

    assert await chats.add_unless_taken(added) == taken

    for number, one in enumerate(added):
        said = (await chats.messages(one.chat.id)).items
        expected = [] if one.chat.id in taken else [{"role": "user", "content": f"{number}"}]
        assert [each.message for each in said] == expected
    assert (await chats.get(added[1].chat.id)) == added[1].chat
    assert await chats.add_unless_taken(added) == [one.chat.id for one in added]


async def test_no_chat_is_added_if_one_is_unstorable(chats):
    bad = a_chat(metadata={"k" * 65: "a name that is too long"})

    with pytest.raises(Unstorable):
        await chats.add_unless_taken([NewChat(chat=chat, messages=[]) for chat in (a_chat(), bad)])
    assert list((await chats.list()).items) == []


async def test_chats_added_together_belong_to_the_owners_that_they_name(chats):
    mine, theirs = (a_chat(owner=name) for name in ("mine", "theirs"))

    with as_owner(Owner(id="mine")):
        await chats.add_unless_taken([NewChat(chat=chat, messages=[]) for chat in (mine, theirs)])
        found = await chats.list()

    assert list(found.items) == [mine]
    assert (await chats.get(theirs.id)).owner == "theirs"


@pytest.mark.parametrize("model", [None, "small", "large"])
async def test_chats_are_found_by_model_and_metadata(chats, model):
    stored = [
        a_chat(model=name, metadata={"user": user, "kind": kind})
        for name in ("small", "large")
        for user in ("ann", "bob")
        for kind in ("test", "real")
    ]
    for chat in stored:
        await chats.add(chat, [])

    page = await chats.list(model=model, metadata={"user": "ann", "kind": "real"})

    assert list(page.items) == [
        chat
        for chat in stored
        if chat.metadata == {"user": "ann", "kind": "real"} and model in (None, chat.model)
    ]


@pytest.mark.parametrize(
    "filters",
    [
        {"model": "unknown"},
        {"model": "\0"},
        {"metadata": {"user": "unknown"}},
        {"metadata": {"\0": "ann"}},
        {"metadata": {"user": "\ud800"}},
        {"metadata": {"user": "ann", "kind": "real"}},
    ],
    ids=repr,
)
async def test_filter_without_matches_returns_an_empty_page(chats, filters):
    await chats.add(a_chat(metadata={"user": "ann"}), [])

    page = await chats.list(**filters)

    assert (list(page.items), page.has_more) == ([], False)


async def test_chat_metadata_may_be_as_long_as_openai_allows(chats):
    widest = "".join(chr(0x10000 + 37 * number) for number in range(512))  # 4 bytes, incompressible
    chat = a_chat(metadata={widest[:64]: widest})

    await chats.add(chat, [])

    assert (await chats.list(metadata=chat.metadata)).items == [chat]


async def test_chat_metadata_is_replaced(chats):
    chat = a_chat(metadata={"user": "ann", "kind": "test"})
    await chats.add(chat, [])

    updated = await chats.update_metadata(chat.id, {"user": "bob"})

    assert updated.metadata == {"user": "bob"}
    assert await chats.get(chat.id) == updated
    assert not (await chats.list(metadata={"kind": "test"})).items
    assert [found.id for found in (await chats.list(metadata={"user": "bob"})).items] == [chat.id]


async def test_chat_metadata_without_the_expected_pairs_stays(chats):
    chat = a_chat(metadata={"title": "Mine", "kind": "test"})
    await chats.add(chat, [])

    for expected in ({"title": "Hello!"}, {"title": "Mine", "user": "ann"}):
        with pytest.raises(MetadataChanged):
            await chats.update_metadata(chat.id, {"title": "Generated"}, expected)
    assert await chats.get(chat.id) == chat
    updated = await chats.update_metadata(chat.id, {"title": "Another"}, {"title": "Mine"})
    assert updated.metadata == {"title": "Another"}


async def test_deleting_a_chat_deletes_its_messages_and_metadata(chats):
    chat = a_chat(metadata={"user": "ann"})
    await chats.add(chat, some_messages(3))

    await chats.delete(chat.id)
    await chats.add(a_chat(id=chat.id), [])

    assert (await chats.get(chat.id)).metadata == {}
    assert not (await chats.messages(chat.id)).items
    assert not (await chats.list(metadata={"user": "ann"})).items


@pytest.mark.parametrize("id", ["chatcmpl-unknown", "", "\0", "\ud800", "' OR 1=1 --"], ids=repr)
async def test_unknown_chat_is_missing(chats, id):
    for call in (
        chats.get(id),
        chats.messages(id),
        chats.update_metadata(id, {}),
        chats.delete(id),
    ):
        with pytest.raises(Missing) as missing:
            await call
        assert missing.value.id == id


@pytest.mark.parametrize("end", ["-2", "-01", "-x", "-", "", "--1", "-" + "9" * 5000, "-\0", "-٣"])
async def test_unknown_cursor_is_refused(chats, end):
    chat = a_chat()
    await chats.add(chat, some_messages(2))

    with pytest.raises(UnknownCursor):
        await chats.messages(chat.id, after=chat.id + end)
    with pytest.raises(UnknownCursor):
        await chats.list(after=f"unknown{end}")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "chatcmpl-\0"},
        {"model": "\ud800"},
        {"metadata": {"key": "\0"}},
        {"metadata": {"k" * 65: "value"}},
        {"metadata": {"key": "v" * 513}},
        {"created_at": 2**70},
        {"request": {"top_p": float("nan")}},
    ],
    ids=repr,
)
async def test_unstorable_chat_is_refused(chats, changes):
    with pytest.raises(Unstorable):
        await chats.add(a_chat(**changes), [])
    assert not (await chats.list()).items


async def test_page_limit_is_at_least_one(chats):
    with pytest.raises(ValueError, match="at least one"):
        await chats.list(limit=0)


async def test_concurrent_changes_to_one_chat_are_serialized(database_url):
    values = [{"turn": str(number)} for number in range(12)]
    async with Database.open(database_url) as one, Database.open(database_url) as other:
        await migrate(one)
        chat = a_chat()
        await ChatStore(one).add(chat, [])

        turns = zip(values, [ChatStore(one), ChatStore(other)] * 6, strict=True)
        await asyncio.gather(*(chats.update_metadata(chat.id, value) for value, chats in turns))
        deleted = await asyncio.gather(
            *(ChatStore(database).delete(chat.id) for database in (one, other)),
            return_exceptions=True,
        )

    assert sorted(map(type, deleted), key=str) == [type(None), Missing]
