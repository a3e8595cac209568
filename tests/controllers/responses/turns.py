"""Responses from a body to their events, over a model that a test has written."""

import types

import orjson

from llm_backend.controllers.response_items.items import stored_form
from llm_backend.controllers.responses.loop.response_turn import ResponseTurn
from llm_backend.controllers.services.server_tools import ServerTools
from tests.controllers.responses.scripted import LISTED_ITEMS, NoFiles, settings


class Memory:
    """Fake store: context of a conversation, and stored responses."""

    def __init__(self, said=()) -> None:
        self.said, self.kept = list(said), []

    def should_store(self, body):
        return True

    async def load_context(self, body):
        return list(self.said)

    async def resolve_items(self, given):
        given = [{"role": "user", "content": given}] if isinstance(given, str) else given
        return [stored_form(item) for item in given or ()]

    async def store(self, body, response, items):
        self.kept.append(response)
        self.said += [*items, *response["output"]]

    async def try_store(self, body, response, items):
        await self.store(body, response, items)
        return True

    def store_in_background(self, body, response, items):
        self.kept.append(response)


def services(model, memory, *, judge=None, file_texts=None, input_images=None, **set_to):
    """Services of a response; `judge` is the model of that name."""
    registry = types.SimpleNamespace(
        for_model=lambda name: judge if name == "judge" else model,
        is_own_name=lambda name: name in ("m", "judge"),
    )
    return types.SimpleNamespace(
        registry=registry,
        chat_recorder=memory,
        responses=memory,
        settings=settings(**set_to),
        listed_items=LISTED_ITEMS,
        server_tools=ServerTools(),
        file_texts=file_texts or NoFiles(),
        input_images=input_images or NoFiles(),
    )


async def turn(given, model, **fields) -> ResponseTurn:
    """The turn of a body with these fields."""
    return await ResponseTurn.begin(given, model, {"model": "m", "input": "Now?", **fields})


async def events(turn):
    """Events of a turn's stream."""
    return [orjson.loads(event.split(b"data: ")[1]) async for event in turn.events()]
