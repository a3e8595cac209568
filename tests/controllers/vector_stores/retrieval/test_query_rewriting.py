"""Queries rewritten by a chat model before they are looked for."""

from typing import Any

import pytest

from llm_backend.backends.base import ChatDelta
from llm_backend.controllers.vector_stores.retrieval.query_rewriting import rewrite_queries
from llm_backend.errors import InvalidRequest, ServiceUnavailable, Unsupported
from tests.controllers.responses.scripted import Answer, Model, forever

QUERY = "Could you please tell me how the garden gate opens?"


class Registry:
    """One model."""

    def __init__(self, model: Model | None) -> None:
        self._model = model

    def for_model(self, name: str) -> Model | None:
        return self._model


def saying(text: str, reason: str = "stop") -> Answer:
    pieces = (text[:5], text[5:])
    said = [ChatDelta(choice=0, content=piece) for piece in pieces]
    return Answer(*said, ChatDelta(choice=0, finish_reason=reason))


async def asked(model: Model | None, *queries: str) -> list[str]:
    registry: Any = Registry(model)
    return await rewrite_queries(registry, "m", queries or [QUERY], None)


async def test_each_query_is_rewritten_by_the_model():
    model = Model(saying('{"query": "garden gate opens"}'), saying('{"query":"key"}'))

    assert await asked(model, QUERY, "Where is the key?") == ["garden gate opens", "key"]
    assert [chat.messages[-1]["content"] for chat in model.asked] == [QUERY, "Where is the key?"]


async def test_a_query_that_the_model_makes_nothing_of_stays_as_it_is():
    model = Model(saying('{"query": "garden ga', "length"), saying('{"query": " "}'))

    assert await asked(model, QUERY, "x") == [QUERY, "x"]


async def test_a_model_that_always_thinks_first_may_think():
    always = InvalidRequest("It always reasons.", param="reasoning_effort")
    model = Model(always, saying('{"query": "gate"}'))

    assert await asked(model) == ["gate"]
    assert [chat.reasoning_effort for chat in model.asked] == ["none", None]


async def test_one_query_that_cannot_be_rewritten_ends_the_others():
    endless = Answer(ChatDelta(choice=0, content="{"), before_the_last=forever)

    async def fails_when_the_other_has_begun(_seconds: float) -> None:
        await endless.wait_begun()
        raise ServiceUnavailable("Not now.")

    failing = Answer(ChatDelta(choice=0), before_the_last=fails_when_the_other_has_begun)
    with pytest.raises(ServiceUnavailable):
        await asked(Model(endless, failing), QUERY, "Where is the key?")

    assert (endless.closed, failing.closed) == (1, 1)


async def test_an_unavailable_query_model_is_an_error_of_the_search():
    with pytest.raises(ServiceUnavailable):
        await asked(Model(ServiceUnavailable("Not now.")))
    with pytest.raises(Unsupported, match="`query_model` names `m`"):
        await asked(None)
