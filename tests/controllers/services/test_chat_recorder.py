"""Chats that cannot be stored: lost, counted and logged, or refused."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from llm_backend.controllers.services.chat_recorder import ChatRecorder, ParsedAnswer
from llm_backend.controllers.write_behind.lost_writes import LostWrites
from llm_backend.errors import InvalidRequest, ServiceUnavailable
from llm_backend.store import NewChat, Owner, StoreUnavailable, Unstorable, as_owner

BODY = {"model": "builtin", "messages": []}
COMPLETION = {"id": "chatcmpl-1", "created": 0, "model": "builtin", "choices": []}


class FullDisk:
    """Chats on a disk that has no room."""

    async def add_unless_taken(self, _added: object) -> None:
        raise StoreUnavailable("The disk is full.")


class Shelf:
    """Chats that are remembered by their ids: in which writes, what has been taken before, and what
    cannot be stored."""

    def __init__(self, *taken: str, bad: Sequence[str] = ()) -> None:
        self.taken = set(taken)
        self.bad = set(bad)
        self.writes: list[list[str]] = []
        self.owners: list[str | None] = []

    async def add_unless_taken(self, added: Sequence[NewChat]) -> list[str]:
        ids = [one.chat.id for one in added]
        if bad := self.bad & set(ids):
            raise Unstorable(f"{min(bad)} cannot be stored.")
        taken = self.taken & set(ids)
        self.taken.update(ids)
        self.writes.append([id for id in ids if id not in taken])
        self.owners += [one.chat.owner for one in added]
        return [id for id in ids if id in taken]


class NoCompletion:
    """Answer that cannot be stored."""

    is_complete = False

    def completion(self) -> None:
        return None


def relayed(memory: ChatRecorder, number: int, **more: Any) -> Awaitable[None] | None:
    completion = {**COMPLETION, "id": f"c{number}"}
    answer = ParsedAnswer(parsed=completion, is_complete=True)
    return memory.store_relayed({**BODY, **more}, answer, size_bytes=100)


async def test_a_chat_that_is_not_stored_is_one_line_of_the_log(caplog):
    await ChatRecorder(FullDisk(), "always").store(BODY, COMPLETION)

    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "chat_not_stored")
    assert (record.chat_id, record.reason) == ("chatcmpl-1", "The disk is full.")
    assert record.exc_info is None


async def test_a_chat_that_was_to_be_stored_and_is_not_is_an_error():
    with pytest.raises(ServiceUnavailable, match="try again later") as caught:
        await ChatRecorder(FullDisk(), "always").store({**BODY, "store": True}, COMPLETION)

    assert caught.value.retry_after_s


async def test_relayed_chats_are_stored_behind_their_answers_and_together():
    memory = ChatRecorder(shelf := Shelf(), "always")

    assert [relayed(memory, number) for number in range(3)] == [None] * 3
    assert shelf.writes == []
    await memory.flush()
    assert shelf.writes == [["c0", "c1", "c2"]]


async def test_an_answer_that_is_no_completion_is_left_out_of_its_batch():
    memory = ChatRecorder(shelf := Shelf(), "always")

    for number in range(40):
        relayed(memory, number)
        assert memory.store_relayed(BODY, NoCompletion(), size_bytes=9) is None
    assert memory.store_relayed({**BODY, "store": True}, NoCompletion(), size_bytes=9) is None
    await memory.flush()
    memory.store_relayed(BODY, NoCompletion(), size_bytes=9)
    await memory.flush()  # of nothing else

    assert shelf.writes == [[f"c{number}" for number in range(40)]]


async def test_a_relayed_chat_belongs_to_the_owner_of_its_request():
    memory = ChatRecorder(shelf := Shelf(), "always")

    for number, owner in enumerate(["a", None, "b"]):
        with as_owner(None if owner is None else Owner(id=owner)):
            relayed(memory, number)
    await memory.flush()

    assert shelf.owners == ["a", None, "b"]


async def test_a_relayed_chat_with_store_true_is_stored_before_its_end():
    memory = ChatRecorder(shelf := Shelf(), "always")

    storing = relayed(memory, 1, store=True)

    assert storing is not None
    await storing
    assert shelf.writes == [["c1"]]


async def test_one_invalid_chat_fails_alone(caplog):
    memory = ChatRecorder(shelf := Shelf(bad=["c1"]), "always")

    for number in range(3):
        relayed(memory, number)
    await memory.wait_idle()

    assert shelf.writes == [["c0"], ["c2"]]
    assert [(one.getMessage(), one.chat_id) for one in caplog.records] == [
        ("chat_not_stored", "c1")
    ]


async def test_duplicate_chat_ids_are_logged_in_one_line(caplog):
    memory = ChatRecorder(shelf := Shelf("c1", "c2"), "always")

    for number in range(4):
        relayed(memory, number)
    await memory.wait_idle()

    assert shelf.writes == [["c0", "c3"]]
    (told,) = caplog.records
    assert (told.getMessage(), told.chat_id, told.chats) == ("chat_id_taken", "c1", 2)


async def test_lost_relayed_chats_are_counted_and_logged_in_few_lines(caplog):
    lost: list[None] = []
    losses = LostWrites("chat_not_stored", "chat_id", lambda: lost.append(None))
    memory = ChatRecorder(FullDisk(), "always", losses)

    for number in range(20):
        relayed(memory, number)
    await memory.wait_idle()

    told = [(one.getMessage(), one.chat_id, one.reason, one.lost) for one in caplog.records]
    assert told == [
        ("chat_not_stored", "c0", "The disk is full.", 1),
        ("chat_not_stored", "c19", "The disk is full.", 19),
    ]
    assert len(lost) == 20


async def test_chats_to_store_at_one_time_are_one_write():
    memory = ChatRecorder(shelf := Shelf(), "on-request")

    storing = [relayed(memory, number, store=True) for number in range(3)]
    await asyncio.gather(*(one for one in storing if one is not None))

    (ids,) = shelf.writes
    assert sorted(ids) == ["c0", "c1", "c2"]


async def test_one_bad_chat_is_only_its_own_clients_mistake():
    memory = ChatRecorder(Shelf(bad=["c1"]), "always")

    storing = [relayed(memory, number, store=True) for number in range(3)]
    fates = await asyncio.gather(
        *(one for one in storing if one is not None), return_exceptions=True
    )

    assert [type(fate) for fate in fates] == [type(None), InvalidRequest, type(None)]
