"""Chats that search vector stores: what their models are asked."""

from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.controllers.vector_stores.retrieval import FAILED, retrieved
from llm_backend.errors import InvalidRequest
from llm_backend.store import Missing

TOOL = {"type": "file_search", "vector_store_ids": ["vs_1"]}
FUNCTION = {"type": "function", "function": {"name": "f"}}


class Stores:
    """There is every store, once: whoever looks again finds it gone."""

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, id: str) -> Any:
        self.asked += 1
        if self.asked > 1:
            raise Missing(id)


def services(policy: str = "system-message") -> Any:
    settings = SimpleNamespace(
        retrieval_policy=policy, passages_limit=3, retrieval_least_similarity=0.2
    )
    return SimpleNamespace(settings=settings, library=SimpleNamespace(stores=Stores()))


def chat(*messages: tuple[str, Any], **more: Any) -> dict[str, Any]:
    told = [{"role": role, "content": content} for role, content in messages]
    return {"model": "m", "messages": told, **more}


async def test_a_chat_that_names_no_store_stays_as_it_is() -> None:
    body = chat(("user", "Hi"), tools=[FUNCTION])

    assert await retrieved(services(), body, ()) == (body, None)


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
    told, retrieval = await retrieved(services(policy), chat(*messages, tools=[TOOL]), ())

    assert told == chat(*asked)
    assert retrieval is not None
    assert retrieval.told()["status"] == "failed"
    assert retrieval.told()["error"] == "No vector store has the id `vs_1`."


async def test_other_tools_stay() -> None:
    body = chat(("user", "Hi"), tools=[TOOL, FUNCTION], tool_choice="auto")

    told, _ = await retrieved(services(), body, ())

    assert told["tools"] == [FUNCTION]
    assert told["tool_choice"] == "auto"


async def test_a_choice_among_no_tools_goes_with_them() -> None:
    told, _ = await retrieved(
        services(), chat(("user", "Hi"), tools=[TOOL], tool_choice="auto"), ()
    )

    assert "tool_choice" not in told


async def test_two_searches_are_refused_by_the_second() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await retrieved(services(), chat(("user", "Hi"), tools=[TOOL, TOOL]), ())

    assert refused.value.param == "tools[1]"
