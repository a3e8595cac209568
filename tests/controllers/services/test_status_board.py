"""Status board: the models' states in one word and a sentence."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from llm_backend.backends.local.model_handle import ModelState
from llm_backend.contract import load_document
from llm_backend.controllers.services.status_board import StatusBoard
from llm_backend.engine import EngineDown, EngineState
from llm_backend.engine.messages import Status


def model(state: EngineState, running: int | None = 0, waiting: int = 0) -> Any:
    """A model whose engine says so; one that runs None does not answer."""

    async def status() -> Status:
        if running is None:
            raise EngineDown("gone", retry_after_s=1)
        sums = dict.fromkeys(("cell_tokens", "passes", "sequences", "computed_tokens"), 0)
        names = ("admitted_tokens", "cached_tokens", "generated_tokens", "media_tokens")
        tokens = dict.fromkeys(names, 0)
        seconds = {"busy_s": 0.0, "media_s": 0.0}
        return Status(id="1", running=running, waiting=waiting, **seconds, **sums, **tokens)

    engine = SimpleNamespace(info=None, status=status)
    card = SimpleNamespace(id=f"{state}-{id(engine)}")
    return SimpleNamespace(card=card, engine=engine, engine_state=str(state))


READY = EngineState.READY


async def has_room() -> bool:
    return True


@pytest.mark.parametrize(
    ("models", "has_upstream", "status"),
    [
        ([], False, "terminated"),
        ([], True, "idle"),
        ([model(EngineState.STARTING, None)], False, "loading"),
        ([model(READY), model(EngineState.STARTING, None)], False, "idle"),
        ([model(READY), model(READY, running=1)], False, "processing"),
        ([model(READY, waiting=1)], False, "processing"),
        ([model(EngineState.FAILED, None)], True, "error"),
        ([model(EngineState.RESTARTING, None), model(READY)], False, "idle"),
        ([model(EngineState.FAILED, None), model(EngineState.CLOSED, None)], False, "error"),
        ([model(EngineState.CLOSED, None), model(EngineState.STARTING, None)], False, "loading"),
    ],
)
async def test_one_word_is_true_of_all_models(models, has_upstream, status):
    board = StatusBoard(
        lambda: models, asyncio.Event(), has_upstream=has_upstream, has_room=has_room
    )

    told = await board.current()

    assert told["status"] == status
    assert [one["work"] is None for one in told["models"]] == [
        one.engine_state != READY for one in models
    ]


async def test_frequent_reads_of_the_status_poll_the_engines_once():
    asked, one = 0, model(READY)
    answer = one.engine.status

    async def counted() -> Status:
        nonlocal asked
        asked += 1
        return await answer()

    one.engine.status = counted
    board = StatusBoard(lambda: [one], asyncio.Event(), has_upstream=False, has_room=has_room)
    await asyncio.gather(*(board.current() for _ in range(20)))

    assert asked == 1


async def test_watchers_get_changes_only_and_are_ended_at_shutdown():
    stopping, one = asyncio.Event(), model(READY)
    board = StatusBoard(lambda: [one], stopping, has_upstream=False, has_room=has_room)
    watching = board.watch()
    first = await anext(watching)
    one.engine_state = str(EngineState.RESTARTING)
    second = await anext(watching)
    stopping.set()

    assert (first["status"], second["status"]) == ("idle", "error")
    assert [told["status"] async for told in watching] == ["terminated"]


def test_document_has_every_state_of_a_model() -> None:
    schema = orjson.loads(load_document().component("schemas", "ModelState"))

    assert set(schema["enum"]) == {ModelState.UNLOADED, *EngineState}
