"""Stored responses: writes that failed are counted, and those that a disconnect cut off are not."""

import pytest

from llm_backend.controllers.services.stored_responses import StoredResponses
from llm_backend.controllers.write_behind.lost_writes import LostWrites
from llm_backend.store import ConversationStore, Database, ResponseStore, migrate

BODY = {"model": "m", "input": "Hello"}
RESPONSE = {"id": "resp_1", "created_at": 1, "model": "m", "status": "completed", "output": []}


@pytest.fixture
async def database(tmp_path):
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield database


def stored(database: Database, lost: list[str]) -> StoredResponses:
    losses = LostWrites("response_not_stored", "response_id", lambda: lost.append("one"))
    return StoredResponses(ResponseStore(database), ConversationStore(database), losses)


async def test_a_response_whose_write_went_on_after_a_disconnect_is_not_counted_as_lost(database):
    lost: list[str] = []
    responses = stored(database, lost)
    await responses.store(BODY, RESPONSE, [])
    responses.store_in_background(BODY, {**RESPONSE, "status": "cancelled"}, [])
    await responses.wait_idle()

    assert (await responses.responses.get("resp_1"))["status"] == "completed"
    assert lost == []


async def test_a_response_that_cannot_be_stored_is_counted_as_lost(database):
    lost: list[str] = []
    responses = stored(database, lost)
    body = {**BODY, "conversation": "conv_deleted"}
    is_stored = await responses.try_store(body, RESPONSE, [])

    assert not is_stored
    assert lost == ["one"]
