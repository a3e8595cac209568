"""Chats that are stored with an answer of their client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_backend.app import App
from llm_backend.settings import load_settings

CHAT = {
    "model": "painter",
    "messages": [{"role": "user", "content": "a lighthouse in fog"}],
    "answer": "![a lighthouse in fog](v1/files/file-1/content)",
    "metadata": {"client": "web", "title": "a lighthouse"},
}


@asynccontextmanager
async def client(folder: Path, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    given = {"models": (), "voice_program": "none", "data_dir": folder, **settings}
    app = App(load_settings(given))
    transport = httpx.ASGITransport(app)
    async with (
        app.open(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as one,
    ):
        yield one


async def test_chat_with_an_answer_of_its_client_is_listed_found_and_read(tmp_path):
    async with client(tmp_path) as one:
        stored = (await one.post("/chat/stored", json=CHAT)).json()
        path = f"/chat/completions/{stored['id']}"
        listed = (await one.get("/chat/completions", params={"metadata[client]": "web"})).json()
        found = (await one.get("/chat/search", params={"query": "lighthouse"})).json()
        messages = (await one.get(f"{path}/messages")).json()

        assert (await one.get(path)).json() == stored
        assert (await one.delete(path)).json()["deleted"] is True
    assert stored["choices"][0]["message"]["content"] == CHAT["answer"]
    assert (stored["model"], stored["metadata"]) == ("painter", CHAT["metadata"])
    assert (stored["choices"][0]["finish_reason"], stored["status"]) == ("stop", "completed")
    assert [one["id"] for one in listed["data"]] == [stored["id"]]
    assert [one["id"] for one in found["data"]] == [stored["id"]]
    assert [one["content"] for one in messages["data"]] == ["a lighthouse in fog"]


async def test_metadata_that_another_client_has_changed_stays(tmp_path):
    async with client(tmp_path) as one:
        stored = (await one.post("/chat/stored", json=CHAT)).json()
        path = f"/chat/completions/{stored['id']}"
        generated = {"metadata": {"title": "Generated"}, "expected_metadata": CHAT["metadata"]}
        await one.post(path, json={"metadata": {"title": "Mine"}})
        answer = await one.post(path, json=generated)
        found = (await one.get(path)).json()
        replaced = await one.post(path, json=generated | {"expected_metadata": {"title": "Mine"}})

    assert answer.status_code == 409
    assert "other metadata" in answer.json()["error"]["message"]
    assert found["metadata"] == {"title": "Mine"}
    assert replaced.json()["metadata"] == {"title": "Generated"}


@pytest.mark.parametrize("name", ["model", "messages", "answer"])
async def test_chat_without_a_required_field_is_refused(tmp_path, name):
    async with client(tmp_path) as one:
        answer = await one.post(
            "/chat/stored", json={key: value for key, value in CHAT.items() if key != name}
        )

    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


async def test_server_that_stores_no_chats_refuses_store(tmp_path):
    async with client(tmp_path, store_chats="never") as one:
        answer = await one.post("/chat/stored", json=CHAT)

    assert answer.status_code == 501
    assert "stores no chats" in answer.json()["error"]["message"]


async def test_chat_of_a_project_with_zero_data_retention_is_refused(tmp_path):
    async with client(tmp_path) as one:
        retention = {"retention_type": "zero_data_retention"}
        await one.post("/organization/data_retention", json=retention)
        answer = await one.post("/chat/stored", json=CHAT)
        listed = (await one.get("/chat/completions")).json()["data"]
        info = (await one.get("/info")).json()

    assert answer.status_code == 403
    assert "retention of project" in answer.json()["error"]["message"]
    assert listed == []
    assert info["stores_chats"] == "never"
