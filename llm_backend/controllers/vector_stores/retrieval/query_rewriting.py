"""Query rewriting: a configured chat model turns questions into search queries."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import orjson

from llm_backend.backends.base import Chat, GenerationLimits, JsonContent, Meter
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import Registry
from llm_backend.engine.messages import Sampling
from llm_backend.errors import InvalidRequest, Unsupported

REWRITE_PROMPT = (
    "Rewrite what the user asks as a query for a search engine: the words that a text which "
    "answers it would hold. Keep names and numbers, leave out the rest. Answer in the user's "
    "language."
)
QUERY_CHARACTERS = 200  # bound in the grammar: a weak model does not end its query
REASONING_TOKENS = 1024  # for models that always reason first
_FIELD = "rewrite_query"
_CONTENT = JsonContent(
    field=_FIELD,
    schema={
        "type": "object",
        "properties": {"query": {"type": "string", "minLength": 1, "maxLength": QUERY_CHARACTERS}},
        "required": ["query"],
        "additionalProperties": False,
    },
)


async def rewrite_queries(
    registry: Registry, name: str, queries: Sequence[str], meter: Meter | None
) -> list[str]:
    """Rewrites the queries with the model of this name, counted by `meter`; keeps a query if the
    model's output is unusable. Raises `ApiError` if the model is unavailable."""
    model = registry.for_model(name)
    if model is None:
        raise Unsupported(
            f"The setting `query_model` names `{name}`, which is an upstream's; it must be a model "
            "that is served here.",
            param=_FIELD,
        )
    metered = model.with_meter(meter)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_rewrite(metered, query)) for query in queries]
    except ExceptionGroup as failed:  # the first failure cancelled the other tasks
        raise failed.exceptions[0] from None
    return [one.result() for one in tasks]


async def _rewrite(model: LocalModel, query: str) -> str:
    chat = Chat(
        messages=[
            {"role": "system", "content": REWRITE_PROMPT},
            {"role": "user", "content": query},
        ],
        has_personality=False,
        grammar=_CONTENT,
        reasoning_effort="none",
        limits=GenerationLimits(max_tokens=REASONING_TOKENS),
        sampling=Sampling(temperature=0),
    )
    try:
        answer = await model.chat(chat)
    except InvalidRequest as error:
        if error.param != "reasoning_effort":
            raise
        chat = replace(chat, reasoning_effort=None)  # the model always reasons first
        answer = await model.chat(chat)
    async with answer, aclosing(answer.chat_deltas(chat)) as deltas:
        text = "".join([delta.content async for delta in deltas])
    try:
        return str(orjson.loads(text)["query"]).strip() or query
    except ValueError:  # truncated by `max_tokens`
        return query
