"""Tools of the MCP server, each of which calls one of this server's operations (pure)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from llm_backend import exact_json
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject

_ID: JsonObject = {"type": "string", "minLength": 1, "maxLength": 256}
_CHARACTER_BYTES = 4  # longest character in UTF-8
_LIST: JsonObject = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 100, "description": "How many at most."},
    "after": {**_ID, "description": "The `last_id` of the page before."},
}


@dataclass(frozen=True, kw_only=True)
class ToolRequest:
    """Request of an operation. `path` is percent-encoded; `byte_range` selects bytes of a file."""

    method: str
    path: str
    query: bytes = b""
    body: bytes = b""
    byte_range: tuple[int, int] | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers besides those of the client."""
        if self.byte_range is None:
            return []
        start, end = self.byte_range
        return [(b"range", f"bytes={start}-{end - 1}".encode())]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """Tool with the schema of its arguments. `request` turns the arguments into a request to this
    server; `render` turns the body of the response, and the arguments, into the tool's answer."""

    name: str
    description: str
    properties: Mapping[str, JsonObject]
    required: tuple[str, ...] = ()
    request: Callable[[JsonMapping], ToolRequest]
    render: Callable[[bytes, JsonMapping], Any]
    is_read_only: bool = True

    @property
    def input_schema(self) -> JsonObject:
        """JSON schema of the arguments."""
        return {
            "type": "object",
            "properties": dict(self.properties),
            "required": list(self.required),
            "additionalProperties": False,
        }


def tools_of(*, file_limit_bytes: int) -> list[Tool]:
    """Returns all tools; a file is read in pieces of at most `file_limit_bytes`."""
    return [
        Tool(
            name="list_vector_stores",
            description="List the vector stores, whose files can be searched.",
            properties=_LIST,
            request=lambda given: _list_request("/vector_stores", given),
            render=_render_list("id", "name", "status", "file_counts"),
        ),
        Tool(
            name="search_vector_store",
            description="Search the files of a vector store for passages on a question.",
            properties={
                "vector_store_id": _ID,
                "query": {"type": "string", "minLength": 1},
                "max_num_results": {"type": "integer", "minimum": 1, "maximum": 50},
            },
            required=("vector_store_id", "query"),
            request=_search_request,
            render=_render_list("file_id", "filename", "score", "content"),
        ),
        Tool(
            name="list_files",
            description="List the files.",
            properties=_LIST,
            request=lambda given: _list_request("/files", given),
            render=_render_list("id", "filename", "bytes", "created_at", "purpose"),
        ),
        Tool(
            name="read_file",
            description="Read a text file, or a piece of a long one: `length` bytes from `offset` "
            "on, in whole characters. The next piece is at `offset` + `length`; one without text "
            "is after the end.",
            properties={
                "file_id": _ID,
                "offset": {"type": "integer", "minimum": 0, "description": "First byte, from 0."},
                "length": {
                    "type": "integer",
                    "minimum": _CHARACTER_BYTES,  # a piece inside a character would be empty
                    "maximum": file_limit_bytes,
                },
            },
            required=("file_id",),
            request=lambda given: read_request(
                given["file_id"],
                int(given.get("offset", 0)),
                int(given.get("length", file_limit_bytes)) + _CHARACTER_BYTES - 1,
            ),
            render=lambda body, given: _render_text(
                body, int(given.get("offset", 0)), int(given.get("length", file_limit_bytes))
            ),
        ),
        Tool(
            name="list_models",
            description="List the models.",
            properties={},
            request=lambda _given: ToolRequest(method="GET", path="/models"),
            render=_render_list("id", "owned_by", "description"),
        ),
        Tool(
            name="chat",
            description="Ask a model of `list_models`.",
            properties={
                "model": {"type": "string", "minLength": 1},
                "message": {"type": "string", "minLength": 1},
                "system": {"type": "string", "description": "Instructions for the model."},
                "max_tokens": {"type": "integer", "minimum": 1},
            },
            required=("model", "message"),
            request=_chat_request,
            render=_render_chat,
            is_read_only=False,
        ),
    ]


def read_request(file_id: str, offset: int, length: int) -> ToolRequest:
    """Returns the request of a piece of a file."""
    path = f"/files/{quote(file_id, safe='')}/content"
    return ToolRequest(method="GET", path=path, byte_range=(offset, offset + length))


def files_request(after: str | None) -> ToolRequest:
    """Returns the request of a page of files."""
    given = {"limit": 100} | ({"after": after} if after else {})
    return _list_request("/files", given)


def _list_request(path: str, given: JsonMapping) -> ToolRequest:
    query = {name: given[name] for name in ("limit", "after") if name in given}
    if "limit" in query:
        query["limit"] = int(query["limit"])  # JSON has 1.0, too
    return ToolRequest(method="GET", path=path, query=urlencode(query).encode())


def _search_request(given: JsonMapping) -> ToolRequest:
    body = {name: given[name] for name in ("query", "max_num_results") if name in given}
    path = f"/vector_stores/{quote(given['vector_store_id'], safe='')}/search"
    return ToolRequest(method="POST", path=path, body=orjson.dumps(body))


def _chat_request(given: JsonMapping) -> ToolRequest:
    messages = [{"role": "user", "content": given["message"]}]
    if given.get("system"):
        messages.insert(0, {"role": "system", "content": given["system"]})
    body: JsonObject = {"model": given["model"], "messages": messages}
    if "max_tokens" in given:
        body["max_completion_tokens"] = given["max_tokens"]
    return ToolRequest(method="POST", path="/chat/completions", body=exact_json.dumps(body))


def _render_list(*names: str) -> Callable[[bytes, JsonMapping], Any]:
    """Returns a function that renders a list object with these fields of its items."""

    def render(body: bytes, _given: JsonMapping) -> JsonObject:
        page = exact_json.loads(body)
        data = [{name: one[name] for name in names if name in one} for one in page["data"]]
        more = {name: page[name] for name in ("last_id", "has_more") if name in page}
        return {"data": data, **more}

    return render


def _render_text(body: bytes, offset: int, length: int) -> str:
    """Returns the characters that begin in the first `length` bytes of `body`, a piece of a file.
    The piece is a few bytes longer than `length`, so that the last character is whole. Raises
    `InvalidRequest` for other bytes than UTF-8."""
    start = 0
    while offset and start < min(len(body), _CHARACTER_BYTES - 1) and _continues(body[start]):
        start += 1
    end = min(length, len(body))
    while end < len(body) and _continues(body[end]):
        end += 1
    piece = body[start:end]
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequest(
            "The file is not a text in UTF-8; search the vector store that holds it."
        )
    return text


def _continues(byte: int) -> bool:
    """True for a byte of UTF-8 that is not the first of its character."""
    return 0x80 <= byte < 0xC0


def _render_chat(body: bytes, _given: JsonMapping) -> str:
    message = exact_json.loads(body)["choices"][0]["message"]
    return str(message.get("content") or message.get("refusal") or "")
