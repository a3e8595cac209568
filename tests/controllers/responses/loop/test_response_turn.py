"""A response's turn frees what it holds and keeps what was said, however it ends."""

import json
import types

import pytest

from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.controllers.response_items.items import stored_form
from llm_backend.controllers.responses.loop.response_turn import ResponseTurn
from llm_backend.controllers.services.server_tools import ServerTools
from llm_backend.errors import ServiceUnavailable
from tests.controllers.responses.scripted import LISTED_ITEMS, NoFiles, settings

BODY = {"model": "m", "input": "Hello"}
SETTINGS = settings()
GONE = ServiceUnavailable("The engine is gone.")
FULL = ServiceUnavailable("The database cannot be used now.")


class Answer:
    """Says two words, or fails after the first."""

    usage = Usage(prompt_tokens=1, completion_tokens=2)

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.was_closed = False

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.was_closed = True

    async def chat_deltas(self, _chat):
        yield ChatDelta(choice=0, content="so ")
        if self.failure is not None:
            raise self.failure
        yield ChatDelta(choice=0, content="it is", finish_reason="stop")


class Model:
    """Answers with what it was given, once each."""

    vector_stores = ()
    accepts_images = False
    meter = None

    def __init__(self, *answers, **defaults) -> None:
        self.answers = list(answers)
        self.asked = []
        self._defaults = defaults

    def with_defaults(self, body):
        return self._defaults | body

    async def chat(self, chat):
        self.asked.append(chat)
        return self.answers.pop(0)


class Memory:
    """Remembers what it was given, and how."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)  # of the next writes
        self.kept, self.kept_behind = [], []

    def should_store(self, body):
        return True

    async def load_context(self, body):
        return []

    async def resolve_items(self, given):
        return [stored_form({"role": "user", "content": given})]

    async def store(self, body, response, items):
        if self.failures:
            raise self.failures.pop(0)
        self.kept.append(response)

    async def try_store(self, body, response, items):
        try:
            await self.store(body, response, items)
        except ServiceUnavailable:
            return False
        return True

    def store_in_background(self, body, response, items):
        self.kept_behind.append(response)


async def turn(
    memory: Memory, *answers, tools=(), settings=SETTINGS, model=None, **fields
) -> ResponseTurn:
    services = types.SimpleNamespace(
        chat_recorder=memory,
        responses=memory,
        settings=settings,
        listed_items=LISTED_ITEMS,
        server_tools=ServerTools(tools),
        file_texts=NoFiles(),
        input_images=NoFiles(),
    )
    return await ResponseTurn.begin(services, model or Model(*answers), {**BODY, **fields})


async def read(events) -> list[str]:
    return [kind_of(event) async for event in events]


def kind_of(event: bytes) -> str:
    return event.split(b"\n")[0].decode().removeprefix("event: ")


def fields_of(event: bytes) -> dict:
    return json.loads(event.partition(b"data: ")[2])


async def test_a_response_is_stored_before_its_last_event():
    memory = Memory()
    told = await read((await turn(memory, Answer())).events())

    assert told[-1] == "response.completed"
    assert [response["status"] for response in memory.kept] == ["completed"]
    assert memory.kept_behind == []


@pytest.mark.parametrize("read_events", [1, 2, 5])
async def test_a_disconnect_at_any_event_frees_the_answer(read_events):
    memory, answer = Memory(), Answer()
    events = (await turn(memory, answer)).events()
    for _ in range(read_events):
        await anext(events)
    await events.aclose()

    assert answer.was_closed
    assert [response["status"] for response in memory.kept_behind] == ["cancelled"]


async def test_a_failed_response_is_stored_before_its_last_event():
    memory = Memory()
    events = (await turn(memory, Answer(GONE))).events()
    async for event in events:
        if kind_of(event) == "response.failed":
            break
    (kept,) = memory.kept
    await events.aclose()

    assert (kept["status"], kept["error"]["message"]) == ("failed", "The engine is gone.")
    assert fields_of(event)["response"] == kept
    assert memory.kept_behind == []


async def test_a_failed_response_that_cannot_be_stored_ends_the_stream_unstored():
    memory = Memory(FULL)
    *_, last = [event async for event in (await turn(memory, Answer(GONE))).events()]

    response = fields_of(last)["response"]
    assert (response["status"], response["store"]) == ("failed", False)
    assert response["error"]["message"] == "The engine is gone."
    assert memory.kept == memory.kept_behind == []


async def test_a_disconnect_after_a_failure_stores_it_as_failed():
    memory = Memory()
    events = (await turn(memory, Answer(GONE))).events()
    async for event in events:
        if kind_of(event) == "response.output_item.done":  # sent because of the failure
            break
    await events.aclose()

    assert [response["status"] for response in memory.kept_behind] == ["failed"]


async def test_a_whole_response_that_fails_is_stored_as_failed():
    memory = Memory()
    with pytest.raises(ServiceUnavailable):
        await (await turn(memory, Answer(GONE))).response()

    (kept,) = memory.kept_behind
    assert kept["status"] == "failed"
    assert kept["output"][0]["content"][0]["text"] == "so "


async def test_a_stream_that_cannot_be_stored_as_it_ended_is_stored_as_failed():
    memory = Memory(FULL)
    events = [event async for event in (await turn(memory, Answer())).events()]

    assert "response.completed" not in map(kind_of, events)
    response = fields_of(events[-1])["response"]
    assert (response["status"], response["store"]) == ("failed", True)
    assert memory.kept == [response]


async def test_a_stream_that_cannot_be_stored_at_all_ends_failed():
    memory = Memory(FULL, FULL)
    events = [event async for event in (await turn(memory, Answer())).events()]

    assert "response.completed" not in map(kind_of, events)
    response = fields_of(events[-1])["response"]
    assert (response["status"], response["store"]) == ("failed", False)
    assert response["error"]["message"] == "The database cannot be used now."
    assert memory.kept == memory.kept_behind == []


async def test_a_whole_response_that_cannot_be_stored_is_an_error():
    memory = Memory(FULL)
    with pytest.raises(ServiceUnavailable):
        await (await turn(memory, Answer())).response()

    assert [response["status"] for response in memory.kept_behind] == ["failed"]


async def test_defaults_of_the_model_fill_missing_fields():
    model = Model(Answer(), max_completion_tokens=7)

    await (await turn(Memory(), model=model)).response()

    assert model.asked[0].limits.max_tokens == 7
