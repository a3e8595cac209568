"""Chats of other APIs keep the rules of chats."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.controllers.relay.bridge.test_bridge import chat_says
from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream

HELLO = {"model": "far", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("path", "more"), [("/v1/messages", {"max_tokens": 5}), ("/api/chat", {"stream": False})]
)
async def test_chats_of_other_apis_are_not_stored_with_a_retention_of_zero(
    tmp_path: Path, path: str, more: Any
) -> None:
    answer = chat_says({"role": "assistant"}, {"content": "Hello"})
    async with FakeUpstream(answer=answer) as fake:
        settings = {"backends": [backend(fake, "a", wire="chat")], "store_chats": "always"}
        async with (
            gateway(tmp_path, allowed_hosts=("127.0.0.1",), **settings) as served,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client,
        ):
            before = await client.post(path, json=HELLO | more)
            retention = {"retention_type": "zero_data_retention"}
            await client.post("/v1/organization/data_retention", json=retention)
            after = await client.post(path, json=HELLO | more)
            stored = (await client.get("/v1/chat/completions")).json()["data"]

    assert "Hello" in before.text
    assert "Hello" in after.text
    assert len(stored) == 1
