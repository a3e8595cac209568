"""Acknowledged writes survive a killed process."""

import subprocess
import sys
from pathlib import Path

from llm_backend.store import ChatStore, Database
from tests.store.chat_values import every_chat

_PROGRAM = Path(__file__).with_name("storing.py")
_ENOUGH = 100


async def test_acknowledged_chats_survive_a_killed_process(database_url):
    acknowledged = acknowledged_before_death(database_url)

    async with Database.open(database_url) as database:
        chats = ChatStore(database)
        stored = {chat.id: chat async for chat in every_chat(chats)}
        assert len(acknowledged) >= _ENOUGH
        assert not [id for id in acknowledged if id not in stored]
        assert all(chat.response == {"text": "x" * 1000} for chat in stored.values())
        for id in acknowledged[-20:]:
            assert [item.message["content"] for item in (await chats.messages(id)).items] == [id]


def acknowledged_before_death(url: str) -> list[str]:
    """The ids that the program printed before it was killed in the middle of its work."""
    with subprocess.Popen(
        [sys.executable, _PROGRAM, url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        said = [process.stdout.readline().strip() for _ in range(_ENOUGH)]
        process.kill()
        *rest, _torn = process.stdout.read().split("\n")  # the last line may be half written
    return said + rest
