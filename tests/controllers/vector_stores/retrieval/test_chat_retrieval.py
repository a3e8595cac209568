"""Chats that search vector stores: what their models are asked."""

from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.controllers.vector_stores.retrieval.chat_retrieval import (
    FAILED,
    Retrieval,
    retrieve,
)
from llm_backend.errors import InvalidRequest
from llm_backend.store import Missing, Owner, as_owner
from llm_backend.store.database.ownership import with_owner

TOOL = {"type": "file_search", "vector_store_ids": ["vs_1"]}
FUNCTION = {"type": "function", "function": {"name": "f"}}


class Stores:
    """Every store exists for `times` reads, and is deleted afterwards."""

    def __init__(self, times: int = 1) -> None:
        self._times = times
        self.asked = 0
        self.in_nobodys_name: list[bool] = []

    async def get(self, id: str) -> Any:
        self.in_nobodys_name.append(with_owner(print) is print)
        self.asked += 1
        if self.asked > self._times:
            raise Missing(id)


def services(policy: str = "system-message", *, times: int = 1) -> Any:
    settings = SimpleNamespace(
        retrieval_policy=policy, passages_limit=3, retrieval_least_similarity=0.2
    )
    return SimpleNamespace(settings=settings, vector_stores=SimpleNamespace(stores=Stores(times)))


def chat(*messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    told = [{"role": role, "content": content} for role, content in messages]
    return {"model": "m", "messages": told, **more}


async def test_a_chat_that_names_no_store_stays_as_it_is() -> None:
    body = chat(("user", "Hi"), tools=[FUNCTION])

    assert await retrieve(services(), body, (), None) == (body, None)


@pytest.mark.parametrize(
    ("policy", "messages", "asked"),
    [
        ("system-message", [("user", "Hi")], [("system", FAILED), ("user", "Hi")]),
        (
            "system-message",
            [("developer", "Be kind."), ("user", "Hi")],
            [("developer", f"Be kind.\n\n{FAILED}"), ("user", "Hi")],
        ),
        (
            "last-user-message",
            [("user", "Hi"), ("assistant", "Yes?"), ("user", [{"type": "text", "text": "So"}])],
            [
                ("user", "Hi"),
                ("assistant", "Yes?"),
                ("user", [{"type": "text", "text": FAILED}, {"type": "text", "text": "So"}]),
            ],
        ),
    ],
)
async def test_the_model_reads_how_the_search_went(policy, messages, asked) -> None:
    told, retrieval = await retrieve(services(policy), chat(*messages, tools=[TOOL]), (), None)

    assert told == chat(*asked)
    assert retrieval is not None
    assert retrieval.render()["status"] == "failed"
    assert retrieval.render()["error"] == "No vector store has the id `vs_1`."


@pytest.mark.parametrize(
    ("tools", "own", "in_nobodys_name"), [([TOOL], (), False), ([], ("vs_1",), True)]
)
async def test_stores_of_a_model_are_searched_without_an_owner(tools, own, in_nobodys_name) -> None:
    asked = services(times=len(tools))
    with as_owner(Owner(id="proj_1")):
        await retrieve(asked, chat(("user", "Hi"), tools=tools), own, None)

    assert asked.vector_stores.stores.in_nobodys_name[-1] is in_nobodys_name


async def test_other_tools_stay() -> None:
    body = chat(("user", "Hi"), tools=[TOOL, FUNCTION], tool_choice="auto")

    told, _ = await retrieve(services(), body, (), None)

    assert told["tools"] == [FUNCTION]
    assert told["tool_choice"] == "auto"


@pytest.mark.parametrize(
    ("choice", "is_searched"), [("auto", True), ("required", True), ("none", False)]
)
async def test_tool_choice_is_removed_with_the_last_tool(choice: str, is_searched: bool) -> None:
    body, retrieval = await retrieve(
        services(), chat(("user", "Hi"), tools=[TOOL], tool_choice=choice), (), None
    )

    assert "tool_choice" not in body
    assert (retrieval is not None) is is_searched


async def test_two_searches_are_refused_by_the_second() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await retrieve(services(), chat(("user", "Hi"), tools=[TOOL, TOOL]), (), None)

    assert refused.value.param == "tools[1]"


async def test_a_choice_among_no_tools_stays_beside_the_stores_of_a_model() -> None:
    body = chat(("user", ""), tool_choice="required")  # without a question nothing is searched

    told, _ = await retrieve(services(), body, ["vs_1"], None)

    assert told["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("policy", "role", "path", "expected"),
    [
        (
            "system-message",
            "user",
            "messages[1].content[0].image_url",
            "messages[0].content[0].image_url",
        ),
        ("system-message", "user", "messages[0].content", "messages"),
        ("system-message", "system", "messages[1].content", "messages[1].content"),
        ("last-user-message", "user", "messages[0].content[2].file", "messages[0].content[1].file"),
        ("last-user-message", "user", "max_tokens", "max_tokens"),
    ],
)
def test_errors_name_the_messages_as_they_were_sent(
    policy: str, role: str, path: str, expected: str
) -> None:
    messages = chat((role, "Hi"))["messages"]

    assert Retrieval(query="Hi", policy=policy).original_path(path, messages) == expected
