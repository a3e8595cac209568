"""Server tool `file_search` of responses: searches vector stores during a response.

The model calls the tool. With the setting `file_search: always` the server searches before the
first call of the model, which suits models that are too small to decide when to search. The
docstring of `vector_stores/retrieval` distinguishes this path from the search before a chat.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import orjson

from llm_backend.backends.base import Meter
from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.controllers.response_items.items import new_id
from llm_backend.controllers.services.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    Reader,
    ServerCall,
    ServerTool,
    ToolContext,
    ToolEvent,
    ToolKind,
)
from llm_backend.controllers.services.vector_store_services import VectorStoreServices
from llm_backend.controllers.vector_stores.retrieval.hybrid_search import Hit, Query, search
from llm_backend.controllers.vector_stores.retrieval.passages import (
    Passage,
    find_citations,
    format_passages,
)
from llm_backend.controllers.vector_stores.retrieval.tool_entry import check_store_ids, query_from
from llm_backend.errors import ApiError
from llm_backend.json_types import JsonObject
from llm_backend.store import StoreError

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

NAME = "file_search"
QUERIES_LIMIT = 3  # per call
QUERY_CHARACTERS = 120  # limit in the grammar: a weak model may never end its query
_FUNCTION: JsonObject = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Search the user's files. Gives the passages that fit the queries best.",
        "parameters": {
            "type": "object",
            "properties": {
                "queries": {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1, "maxLength": QUERY_CHARACTERS},
                    "minItems": 1,
                    "maxItems": QUERIES_LIMIT,
                }
            },
            "required": ["queries"],
            "additionalProperties": False,
        },
    },
}


class FileSearchKind(ToolKind):
    """Opens the tool for a response; `limit` is the default number of passages of a search,
    `searches_first` searches before the model calls the tool."""

    type = "file_search"
    items = ("file_search_call",)

    def __init__(
        self, vector_stores: VectorStoreServices, *, limit: int, searches_first: bool
    ) -> None:
        self._vector_stores = vector_stores
        self._limit = limit
        self._searches_first = searches_first

    @asynccontextmanager
    async def open(self, context: ToolContext) -> AsyncIterator[ServerTool]:
        """Opens the tool over the stores that the entry names. Raises `NotFound` for an unknown
        store."""
        entry, where = cast("api.FileSearchTool", context.tool), context.where
        store_ids = await check_store_ids(self._vector_stores.stores, entry, where)
        query = query_from(entry, where, limit=self._limit)
        question = _question_text(context.items) if self._searches_first else None
        yield FileSearch(
            self._vector_stores, store_ids, query, question, context.items, context.meter
        )

    def messages(self, item: Item) -> Sequence[JsonObject]:
        """Returns the messages of the call and its results."""
        return _messages(item, 1)


class FileSearch(ServerTool):
    """The tool for one response. `question` is the query of a search before the model's first call;
    None searches only when the model calls the tool. The numbers of passages continue over all
    searches, including those in `earlier_items`."""

    type = "file_search"
    functions = (_FUNCTION,)

    def __init__(
        self,
        vector_stores: VectorStoreServices,
        store_ids: Sequence[str],
        query: Query,
        question: str | None,
        earlier_items: Sequence[Item],
        meter: Meter | None,
    ) -> None:
        self._vector_stores = vector_stores
        self._store_ids = store_ids
        self._query = query
        self._question = question
        self._meter = meter
        self._passages_found: list[Passage] = []
        self._first_numbers: dict[str, int] = {}  # of the passages of a search, by its item's id
        for item in earlier_items:
            if item.get("type") == "file_search_call":
                self._number(item)
        self._count_before = len(self._passages_found)

    @property
    def readers(self) -> Mapping[str, Reader]:
        """Translator of search items to messages, in which passages have their numbers."""
        return {
            "file_search_call": lambda item: _messages(item, self._first_numbers.get(item["id"], 1))
        }

    def initial_calls(self) -> Sequence[ServerCall]:
        """Returns a search for the user's question, if the server searches first."""
        if self._question is None:
            return ()
        arguments = orjson.dumps({"queries": [self._question]}).decode()
        return [ServerCall(name=NAME, arguments=arguments)]

    async def run(self, call: ServerCall) -> AsyncGenerator[ToolEvent, None]:
        """Runs a search; a failure is reported in its item, and the model continues without it."""
        queries = _queries(call.arguments)
        item: JsonObject = {
            "id": new_id("file_search_call"),
            "type": "file_search_call",
            "status": "in_progress",
            "queries": queries,
            "results": None,
        }
        yield CallBegan(item=item)
        yield CallProgress(kind="response.file_search_call.in_progress")
        yield CallProgress(kind="response.file_search_call.searching")
        status, results = "completed", None
        try:
            hits = await search(
                self._vector_stores, self._store_ids, self._query.with_texts(queries), self._meter
            )
            results = [_result(hit) for hit in hits]
        except (ApiError, StoreError):
            status = "failed"
        if status == "completed":
            yield CallProgress(kind="response.file_search_call.completed")
        ended = {**item, "status": status, "results": results}
        self._number(ended)
        yield CallEnded(item=ended)

    def annotations(self, text: str) -> Sequence[JsonObject]:
        """Returns citations of the files that a message cites, or of all files found if none."""
        return [
            {"type": "file_citation", "file_id": one.file_id, "index": one.index,
             "filename": one.filename}
            for one in find_citations(text, self._passages_found, self._count_before)
        ]  # fmt: skip

    def _number(self, item: Item) -> None:
        if item["id"] not in self._first_numbers:
            self._first_numbers[item["id"]] = len(self._passages_found) + 1
            self._passages_found += _passages(item)


def _queries(arguments: str) -> list[str]:
    """Parses the queries of a call; malformed arguments become one query as text."""
    try:
        queries_value = orjson.loads(arguments)["queries"]
    except (ValueError, KeyError, TypeError):
        queries_value = [arguments]
    texts = queries_value if isinstance(queries_value, list) else [queries_value]
    queries = [str(one) for one in texts if str(one).strip()]
    return queries[:QUERIES_LIMIT] or ["?"]


def _question_text(items: Sequence[Item]) -> str | None:
    """Returns the text of the last item, if it is a user message."""
    last = items[-1] if items else {}
    if last.get("type", "message") != "message" or last.get("role") != "user":
        return None
    content = last["content"]
    if not isinstance(content, str):
        parts = [part["text"] for part in content if part["type"] == "input_text"]
        content = "\n".join(parts)
    return re.sub(r"\s+", " ", content).strip() or None


def _result(hit: Hit) -> JsonObject:
    return {
        "vector_store_id": hit.store_id,
        "file_id": hit.file_id,
        "filename": hit.filename,
        "score": hit.score,
        "attributes": dict(hit.attributes),
        "text": hit.text,
    }


def _messages(item: Item, first: int) -> list[JsonObject]:
    arguments = orjson.dumps({"queries": item["queries"]}).decode()
    function = {"name": NAME, "arguments": arguments}
    call = {"id": item["id"], "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": item["id"], "content": _result_text(item, first)},
    ]


def _result_text(item: Item, first: int) -> str:
    if item["status"] in ("failed", "incomplete"):
        return "The search has failed. Say that the files could not be searched."
    return format_passages(_passages(item), first)


def _passages(item: Item) -> list[Passage]:
    return [
        Passage(file_id=one["file_id"], filename=one["filename"], text=one["text"])
        for one in item.get("results") or ()
    ]
