"""Tools that the server runs: called by the model, told as items, what they found given to it."""

import types
from contextlib import asynccontextmanager

import orjson
import pytest

from llm_backend.backends.base import ChatDelta, ToolCall, Usage
from llm_backend.controllers.response_items.items import stored_form
from llm_backend.controllers.responses.loop.response_turn import ResponseTurn
from llm_backend.controllers.services.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    ServerCall,
    ServerTool,
    ServerTools,
    ToolKind,
)
from llm_backend.errors import InvalidRequest, ServiceUnavailable
from tests.controllers.responses.scripted import (
    LISTED_ITEMS,
    Answer,
    Model,
    NoFiles,
    saying,
    settings,
)
from tests.response_events import check_events

CLIENTS = {"type": "function", "name": "mine", "parameters": {"type": "object"}, "strict": False}


class Lookup(ServerTool):
    """Finds nothing, and says so, once for each call."""

    type = "file_search"
    functions = (
        {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}},
    )

    def __init__(self, kind) -> None:
        self._kind = kind

    def initial_calls(self):
        return [ServerCall(name="lookup", arguments="{}")] * self._kind.due

    async def run(self, call):
        if self._kind.failure:
            raise self._kind.failure
        number = len(self._kind.ran)
        self._kind.ran.append(call.arguments)
        item = {"id": f"fs_{number}", "type": "file_search_call", "queries": [call.arguments]}
        yield CallBegan(item={**item, "status": "in_progress"})
        yield CallProgress(kind="response.file_search_call.searching")
        found = [{"text": "42"}]
        yield CallEnded(
            item={**item, "status": "completed", "results": found},
            awaits_client=self._kind.awaits_client,
        )

    def annotations(self, text):
        return [{"type": "file_citation", "file_id": "file_1", "filename": "f", "index": len(text)}]


class LookupKind(ToolKind):
    type = "file_search"
    items = ("file_search_call",)

    def __init__(self, *, due=0, failure=None, awaits_client=False) -> None:
        self.ran, self.is_open = [], False
        self.due, self.failure, self.awaits_client = due, failure, awaits_client

    @asynccontextmanager
    async def open(self, asked):
        if not asked.tool.get("vector_store_ids"):
            raise InvalidRequest("No store.", param=f"{asked.where}.vector_store_ids")
        self.is_open = True
        yield Lookup(self)
        self.is_open = False

    def messages(self, item):
        function = {"name": "lookup", "arguments": "{}"}
        calls = [{"id": item["id"], "type": "function", "function": function}]
        said = str(item.get("results"))
        return [
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "tool_call_id": item["id"], "content": said},
        ]


TOOL = {"type": "file_search", "vector_store_ids": ["vs_1"]}


class Memory:
    def __init__(self) -> None:
        self.kept = []

    def should_store(self, body):
        return True

    async def load_context(self, body):
        return []

    async def resolve_items(self, given):
        return [stored_form({"role": "user", "content": given})]

    async def store(self, body, response, items):
        self.kept.append(response)

    async def try_store(self, body, response, items):
        await self.store(body, response, items)
        return True

    def store_in_background(self, body, response, items):
        self.kept.append(response)


def calling(*names):
    calls = [
        ToolCall(index=place, id=f"call_{place}", name=name, arguments="{}")
        for place, name in enumerate(names)
    ]
    return Answer(
        ChatDelta(choice=0, content="So. "),
        *(ChatDelta(choice=0, tool_calls=[call]) for call in calls),
        ChatDelta(choice=0, finish_reason="tool_calls"),
    )


async def begun(kind, model, memory=None, limit=32, tools=(TOOL,), **fields):
    memory = memory or Memory()
    services = types.SimpleNamespace(
        chat_recorder=memory,
        responses=memory,
        settings=settings(tool_calls_limit=limit),
        listed_items=LISTED_ITEMS,
        server_tools=ServerTools([kind]),
        file_texts=NoFiles(),
        input_images=NoFiles(),
    )
    body = {"model": "m", "input": "What is it?", "tools": list(tools), **fields}
    return await ResponseTurn.begin(services, model, body)


async def told(turn):
    return [orjson.loads(event.split(b"data: ")[1]) async for event in turn.events()]


async def whole(kind, model, **fields):
    return await (await begun(kind, model, **fields)).response()


async def test_a_call_is_run_and_the_model_continues():
    kind, model = LookupKind(), Model(calling("lookup"), saying())
    response = await whole(kind, model)

    assert [item["type"] for item in response["output"]] == [
        "message",
        "file_search_call",
        "message",
    ]
    assert response["usage"]["output_tokens"] == 10
    assert [message["role"] for message in model.asked[1].messages] == ["user", "assistant", "tool"]
    assert "42" in model.asked[1].messages[-1]["content"]
    assert not kind.is_open
    assert [answer.closed for answer in model.answers] == [1, 1]


async def test_the_events_of_a_call_are_the_documents_and_in_order():
    events = await told(await begun(LookupKind(), Model(calling("lookup"), saying())))

    check_events(events)
    kinds = [event["type"].removeprefix("response.") for event in events]
    place = kinds.index("file_search_call.searching")
    assert kinds[place - 1 : place + 2] == [
        "output_item.added", "file_search_call.searching", "output_item.done",
    ]  # fmt: skip
    assert {event["output_index"] for event in events[place - 1 : place + 2]} == {1}
    assert events[place]["item_id"] == "fs_0"
    assert "output_text.annotation.added" in kinds


async def test_streamed_and_whole_responses_are_equal():
    events = await told(await begun(LookupKind(), Model(calling("lookup"), saying())))
    response = await whole(LookupKind(), Model(calling("lookup"), saying()))

    def said(one):
        return [(item["type"], item.get("content"), item.get("queries")) for item in one["output"]]

    assert said(events[-1]["response"]) == said(response)


async def test_results_are_public_if_included_and_always_stored():
    memory = Memory()
    turn = await begun(LookupKind(), Model(calling("lookup"), saying()), memory)
    response = await turn.response()
    included = await whole(
        LookupKind(), Model(calling("lookup"), saying()), include=["file_search_call.results"]
    )

    assert response["output"][1]["results"] is None
    assert memory.kept[0]["output"][1]["results"] == [{"text": "42"}]
    assert included["output"][1]["results"] == [{"text": "42"}]


@pytest.mark.parametrize(("limit", "fields"), [(1, {}), (9, {"max_tool_calls": 1})])
async def test_the_model_has_no_tool_after_the_last_call(limit, fields):
    kind, model = LookupKind(), Model(calling("lookup", "lookup"), saying())
    response = await whole(kind, model, limit=limit, **fields)

    assert len(kind.ran) == 1
    assert model.asked[1].tools == []
    assert response["status"] == "completed"


async def test_tool_loop_ends_at_a_call_beyond_the_limit():
    kind, model = LookupKind(), Model(calling("lookup"), calling("lookup"), saying())
    response = await whole(kind, model, max_tool_calls=1)

    assert (len(kind.ran), len(model.asked)) == (1, 2)
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    "choice",
    [
        "none",
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "mine"}]},
    ],
    ids=["none", "allowed_tools"],
)
async def test_tool_loop_runs_no_call_of_a_tool_that_may_not_be_called(choice):
    kind, model = LookupKind(), Model(calling("lookup"), saying())
    response = await whole(kind, model, tools=[CLIENTS, TOOL], tool_choice=choice)

    assert (kind.ran, len(model.asked)) == ([], 1)
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    ("choice", "must_call", "names"),
    [
        ({"type": "function", "name": "mine"}, True, frozenset({"mine"})),
        ("required", True, None),
        ("auto", False, None),
        ({"type": "file_search"}, False, None),
    ],
    ids=["function", "required", "auto", "file_search"],
)
async def test_tool_loop_without_server_calls_keeps_a_choice_that_client_tools_meet(
    choice, must_call, names
):
    kind, model = LookupKind(), Model(calling("mine"))
    await whole(kind, model, tools=[CLIENTS, TOOL], tool_choice=choice, max_tool_calls=0)

    assert kind.ran == []
    assert [tool["function"]["name"] for tool in model.asked[0].tools] == ["mine"]
    assert (model.asked[0].must_call, model.asked[0].callable_names) == (must_call, names)


async def test_a_demanded_call_is_demanded_once():
    model = Model(calling("lookup"), saying())
    await whole(LookupKind(), model, tool_choice={"type": "file_search"})

    assert [chat.must_call for chat in model.asked] == [True, False]
    assert [chat.callable_names for chat in model.asked] == [frozenset({"lookup"}), None]


async def test_a_call_for_the_client_ends_the_turn_after_the_servers_are_run():
    kind, model = LookupKind(), Model(calling("lookup", "mine"))
    response = await whole(kind, model, tools=[CLIENTS, TOOL])

    assert [item["type"] for item in response["output"]] == [
        "message", "function_call", "file_search_call",
    ]  # fmt: skip
    assert len(kind.ran) == 1


async def test_a_tool_that_awaits_the_client_ends_the_turn():
    model = Model(calling("lookup"))
    response = await whole(LookupKind(awaits_client=True), model)

    assert response["status"] == "completed"
    assert len(model.asked) == 1


async def test_initial_calls_run_before_the_first_round():
    kind, model = LookupKind(due=1), Model(saying())
    response = await whole(kind, model)

    assert [item["type"] for item in response["output"]] == ["file_search_call", "message"]
    assert "42" in model.asked[0].messages[-1]["content"]


@pytest.mark.parametrize(
    ("choice", "must_call", "names"),
    [
        ({"type": "function", "name": "mine"}, True, frozenset({"mine"})),
        ({"type": "file_search"}, False, None),
        ("required", False, None),
    ],
    ids=["function", "file_search", "required"],
)
async def test_initial_calls_leave_a_choice_that_they_do_not_meet(choice, must_call, names):
    model = Model(saying())
    await whole(LookupKind(due=1), model, tools=[CLIENTS, TOOL], tool_choice=choice)

    assert (model.asked[0].must_call, model.asked[0].callable_names) == (must_call, names)


async def test_all_rounds_share_max_output_tokens():
    model = Model(calling("lookup"), saying())
    await whole(LookupKind(), model, max_output_tokens=16)
    spent = Model(calling("lookup"))
    spent.answers[0].usage = Usage(completion_tokens=16)
    response = await whole(LookupKind(), spent, max_output_tokens=16)

    assert [chat.limits.max_tokens for chat in model.asked] == [16, 11]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_tool_that_fails_ends_the_response():
    memory = Memory()
    kind = LookupKind(failure=ServiceUnavailable("The store is gone."))
    events = await told(await begun(kind, Model(calling("lookup")), memory))

    check_events(events)
    assert events[-1]["type"] == "response.failed"
    assert memory.kept[0]["error"]["message"] == "The store is gone."


async def test_a_tool_that_fails_to_open_is_refused_by_path():
    with pytest.raises(InvalidRequest) as refused:
        await begun(LookupKind(), Model(), tools=[CLIENTS, {"type": "file_search"}])

    assert refused.value.param == "tools[1].vector_store_ids"


async def test_an_error_in_a_client_tool_has_its_own_path():
    bad = {**CLIENTS, "name": "no name"}
    with pytest.raises(InvalidRequest) as refused:
        await begun(LookupKind(), Model(), tools=[TOOL, bad])

    assert refused.value.param == "tools[1].name"


@pytest.mark.parametrize("read_events", [1, 6, 12])
async def test_a_disconnect_frees_model_and_tools(read_events):
    kind, memory = LookupKind(), Memory()
    model = Model(calling("lookup"), saying())
    events = (await begun(kind, model, memory)).events()
    for _ in range(read_events):
        await anext(events)
    await events.aclose()

    assert model.answers[0].closed == 1
    assert memory.kept[0]["status"] == "cancelled"
