"""Retrieval for chat completions (RAG): searches vector stores and adds passages to the prompt.

A chat names vector stores in the tool `file_search`, as a response does, or the settings name some
for its model, which are searched for responses, too. There is one search, before the model is
called; its outcome is part of the chat's answer. The package's docstring distinguishes this path
from the server tool of responses.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from llm_backend.backends.base import Meter
from llm_backend.controllers.generation.field_paths import ContentPath, rename_fields
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.retrieval.hybrid_search import Hit, Query, search
from llm_backend.controllers.vector_stores.retrieval.passages import (
    Passage,
    find_citations,
    format_passages,
)
from llm_backend.controllers.vector_stores.retrieval.tool_entry import check_store_ids, query_from
from llm_backend.errors import ApiError, InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store import Missing, StoreError, as_owner

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


_SYSTEM_ROLES = ("system", "developer")

FAILED = "The user's files could not be searched. Say so if the answer depends on them."


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Outcome of a search: query, hits, or the error. `policy` is the position of the passages in
    the messages."""

    query: str
    policy: str
    hits: Sequence[Hit] = ()
    error: str | None = None

    @property
    def passages(self) -> list[Passage]:
        """Hits as passages for the prompt."""
        return [
            Passage(file_id=hit.file_id, filename=hit.filename, text=hit.text) for hit in self.hits
        ]

    def render(self) -> "api.CreateChatCompletionResponseRetrieval":
        """Renders the outcome for the client."""
        return {
            "status": "failed"
            if self.error is not None
            else ("found" if self.hits else "nothing_found"),
            "query": self.query,
            "results": [
                {
                    "file_id": hit.file_id,
                    "filename": hit.filename,
                    "score": hit.score,
                    "text": hit.text,
                }
                for hit in self.hits
            ],
            "error": self.error,
        }

    def add_to(self, messages: Sequence[JsonMapping]) -> list[JsonMapping]:
        """Returns the messages with the passages inserted, for the model."""
        context = FAILED if self.error is not None else format_passages(self.passages)
        return _INSERT_BY_POLICY[self.policy](messages, context)

    def original_path(self, path: str, messages: Sequence[JsonMapping]) -> str:
        """Returns the path that a field of the messages had before `add_to`."""
        found = ContentPath.parse(path)
        if found is None:
            return path
        if self.policy == "system-message":
            index = found.index - (messages[0]["role"] not in _SYSTEM_ROLES)
            # the message with the passages was not sent
            return "messages" if index < 0 else str(replace(found, index=index))
        if found.part and found.index == _last_user(messages):
            return str(replace(found, part=found.part - 1))
        return path

    def annotations(self, text: str = "") -> list[JsonObject]:
        """Returns citations of the files that a text cites, or of all files found if it cites
        none."""
        return [
            {"type": "file_citation", "file_id": one.file_id, "filename": one.filename,
             "index": one.index}
            for one in find_citations(text, self.passages)
        ]  # fmt: skip


@contextmanager
def translate_message_paths(
    retrieval: Retrieval | None, messages: Sequence[JsonMapping]
) -> Iterator[None]:
    """Rewrites `param` of errors about the messages with passages to the paths in `messages`."""
    if retrieval is None:
        yield
        return
    with rename_fields(partial(retrieval.original_path, messages=messages)):
        yield


async def retrieve(
    services: Services,
    body: "api.CreateChatCompletionRequest",
    model_store_ids: Sequence[str],
    meter: Meter | None,
) -> "tuple[api.CreateChatCompletionRequest, Retrieval | None]":
    """Searches for a chat with a local model. Returns the body without the tool `file_search` and
    with the passages, and the retrieval, or None if nothing was searched.

    `model_store_ids` are the vector stores that the settings name for the model; `meter` counts the
    search. Raises `ApiError` for an invalid search in the request.
    """
    indices = [
        index for index, tool in enumerate(body.get("tools") or ()) if tool["type"] == "file_search"
    ]
    if not indices and not model_store_ids:
        return body, None
    if len(indices) > 1:
        raise InvalidRequest(
            "One tool `file_search` can name several vector stores; give only one.",
            param=f"tools[{indices[1]}]",
        )
    chat_body = _without_tools(body, indices)
    if body.get("tool_choice") == "none":
        if not model_store_ids:
            return chat_body, None
        indices = []
    store_ids, query = await _search_of_body(services, body, indices, model_store_ids)
    question = _question(chat_body["messages"])
    if not question:
        return chat_body, None
    # The caller may not own the stores that the server's settings name: no owner filter.
    with nullcontext() if indices else as_owner(None):
        retrieval = await _search(services, store_ids, query.with_texts([question]), meter)
    messages = cast(
        "list[api.ChatCompletionRequestMessage]", retrieval.add_to(chat_body["messages"])
    )
    return {**chat_body, "messages": messages}, retrieval


async def retrieve_from_model_stores(
    services: Services,
    messages: Sequence[JsonMapping],
    model_store_ids: Sequence[str],
    meter: Meter | None,
) -> Retrieval | None:
    """Searches a model's vector stores for the last user message; None if there are no stores or
    the message is empty."""
    question = _question(messages)
    if not model_store_ids or not question:
        return None
    store_ids, query = await _search_of_body(services, {}, (), model_store_ids)
    with as_owner(None):  # no owner filter: the server's settings name the stores
        return await _search(services, store_ids, query.with_texts([question]), meter)


async def _search_of_body(
    services: Services, body: JsonMapping, indices: Sequence[int], model_store_ids: Sequence[str]
) -> tuple[Sequence[str], Query]:
    settings = services.settings
    least, limit = settings.retrieval_least_similarity, settings.passages_limit
    if not indices:
        tool: api.FileSearchTool = {
            "type": "file_search",
            "vector_store_ids": list(model_store_ids),
        }
        query = query_from(tool, "model", limit=limit)
        return list(dict.fromkeys(model_store_ids)), replace(query, least_similarity=least)
    entry, where = body["tools"][indices[0]], f"tools[{indices[0]}]"
    store_ids = await check_store_ids(services.vector_stores.stores, entry, where)
    query = query_from(entry, where, limit=limit)
    is_ranked = bool(entry.get("ranking_options"))
    return store_ids, query if is_ranked else replace(query, least_similarity=least)


async def _search(
    services: Services, store_ids: Sequence[str], query: Query, meter: Meter | None
) -> Retrieval:
    (question,) = query.texts
    outcome = partial(Retrieval, query=question, policy=services.settings.retrieval_policy)
    try:
        return outcome(hits=await search(services.vector_stores, store_ids, query, meter))
    except Missing as error:
        return outcome(error=f"No vector store has the id `{error.id}`.")
    except ApiError as error:
        return outcome(error=error.message)
    except StoreError:
        return outcome(error="The database cannot be used now.")


def _without_tools(
    body: "api.CreateChatCompletionRequest", indices: Sequence[int]
) -> "api.CreateChatCompletionRequest":
    remaining = [tool for index, tool in enumerate(body.get("tools") or ()) if index not in indices]
    without: JsonObject = {name: value for name, value in body.items() if name != "tools"}
    if remaining:
        without["tools"] = remaining
    elif without.get("tool_choice") in ("auto", "none") or (
        indices and without.get("tool_choice") == "required"  # which the search has satisfied
    ):
        del without["tool_choice"]
    return cast("api.CreateChatCompletionRequest", without)


def _question(messages: Sequence[JsonMapping]) -> str:
    """Returns the text of the last user message."""
    user_messages = [message for message in messages if message["role"] == "user"]
    content = user_messages[-1]["content"] if user_messages else ""
    if not isinstance(content, str):
        content = "\n".join(part["text"] for part in content if part["type"] == "text")
    return content.strip()


def _in_system_message(messages: Sequence[JsonMapping], context: str) -> list[JsonMapping]:
    first = messages[0]
    if first["role"] not in _SYSTEM_ROLES:
        return [{"role": "system", "content": context}, *messages]
    return [{**first, "content": _after(first["content"], context)}, *messages[1:]]


def _last_user(messages: Sequence[JsonMapping]) -> int:
    return max(index for index, one in enumerate(messages) if one["role"] == "user")


def _in_user_message(messages: Sequence[JsonMapping], context: str) -> list[JsonMapping]:
    last = _last_user(messages)
    changed = list(messages)
    changed[last] = {**changed[last], "content": _before(changed[last]["content"], context)}
    return changed


_INSERT_BY_POLICY = {"system-message": _in_system_message, "last-user-message": _in_user_message}


def _after(content: Any, context: str) -> Any:
    if isinstance(content, str):
        return f"{content}\n\n{context}"
    return [*content, {"type": "text", "text": context}]


def _before(content: Any, context: str) -> Any:
    if isinstance(content, str):
        return f"{context}\n\n{content}"
    return [{"type": "text", "text": context}, *content]
