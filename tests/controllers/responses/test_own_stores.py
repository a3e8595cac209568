"""A response by a model that has vector stores of its own."""

from types import SimpleNamespace
from typing import Any

from llm_backend.backends.base import Chat
from llm_backend.controllers.generation.structured_output import StructuredOutput
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest
from llm_backend.controllers.services.server_tools import OpenTools
from llm_backend.settings import Settings
from tests.controllers.vector_stores.ingestion.test_ingestion_worker import (
    add_store,
    database,
    indexes,
    jobs,
    stores,
    take_in,
    vector_stores,
)

__all__ = ["database", "indexes", "jobs", "stores"]  # fixtures

ASKED = "How does the gate open?"
USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": ASKED}]}
TEXT = "The gate opens with 4711."


def question(**body: Any) -> ResolvedRequest:
    return ResolvedRequest(
        body={"model": "m", **body}, leading_messages=(), context_items=(), input_items=[USER],
        items=[USER],
        chat=Chat(messages=[]), structure=StructuredOutput(), tools=OpenTools({}, {}),
        client_tools={},
        allowed_names=None, meter=None,
    )  # fmt: skip


async def test_passages_of_model_stores_are_shown_reported_and_cited(jobs, stores, indexes) -> None:
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await take_in(jobs, shelf, {"a": TEXT})
    services: Any = SimpleNamespace(vector_stores=shelf, settings=Settings())
    asked = await question().with_retrieval(services, ["vs_1"])

    assert asked.retrieval is not None
    assert (asked.retrieval.render()["status"], asked.retrieval.query) == ("found", ASKED)
    for chat in (asked.chat, await asked.chat_after(())):
        system, user = chat.messages
        assert (system["role"], user["content"]) == ("system", ASKED)
        assert TEXT in system["content"]
    assert [one["file_id"] for one in asked.annotations("With 4711 [1].")] == ["a"]


async def test_stores_of_the_tool_replace_the_models_stores() -> None:
    tool = {"type": "file_search", "vector_store_ids": ["vs_2"]}
    services: Any = SimpleNamespace()
    asked = question(tools=[tool])

    assert await asked.with_retrieval(services, ["vs_1"]) is asked
    assert (await question().with_retrieval(services, [])).retrieval is None
