"""What happens to chats that cannot be stored."""

import logging

import pytest

from llm_backend.controllers.memory import ChatMemory
from llm_backend.errors import Overloaded
from llm_backend.store import StoreUnavailable

BODY = {"model": "builtin", "messages": []}
COMPLETION = {"id": "chatcmpl-1", "created": 0, "model": "builtin", "choices": []}


class FullDisk:
    """Chats on a disk that has no room."""

    async def add(self, *_: object) -> None:
        raise StoreUnavailable("The disk is full.")


async def test_a_chat_that_is_not_stored_is_one_line_of_the_log(caplog):
    await ChatMemory(FullDisk(), "always").remember(BODY, COMPLETION)

    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "chat_not_stored")
    assert (record.chat_id, record.reason) == ("chatcmpl-1", "The disk is full.")
    assert record.exc_info is None


async def test_a_chat_that_was_to_be_stored_and_is_not_is_an_error():
    with pytest.raises(Overloaded, match="try again later") as caught:
        await ChatMemory(FullDisk(), "always").remember({**BODY, "store": True}, COMPLETION)

    assert caught.value.retry_after_s
