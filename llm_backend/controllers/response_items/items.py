"""Items of the document: their stored form, their public form, and their translation to chat
messages.

Conversations and responses consist of items. A client may send an item in a short form; the stored
form adds an id and a status, and has the content in parts. Pure but for the ids that it generates.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_backend.controllers.generation.custom_tools import INPUT
from llm_backend.controllers.response_items.client_tools import chat_name
from llm_backend.controllers.response_items.compaction_items import parse_compaction, reading_order
from llm_backend.controllers.response_items.encrypted_content import decode_opaque, encode_opaque
from llm_backend.controllers.response_items.input_parts import Item, without_fetched
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonObject, without_nulls
from llm_backend.store import Page, StoredItem

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

Readers = Mapping[str, Callable[[Item], Sequence[JsonObject]]]
"""Functions that translate items to chat messages, by type of item."""

NO_READERS: Readers = {}

LOGPROBS = "message.output_text.logprobs"
"""The value of `include` that asks for logprobs."""

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")

# Id prefixes by type of item; clients use them to tell types apart.
PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "file_search_call": "fs",
    "web_search_call": "ws",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "image_generation_call": "ig",
    "code_interpreter_call": "ci",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "mcp_call": "mcp",
    "mcp_list_tools": "mcpl",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "compaction": "cmp",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "additional_tools": "at",
    "program": "prg",
    "program_output": "prgo",
}

# Defaults, by type, of fields that the document requires of listed items and not of sent ones.
# Clients may also send back items of server tools without all fields (`EchoedItem`).
_COMPLETED: JsonObject = {"status": "completed"}
_DEFAULTS: Mapping[str, JsonObject] = {
    "message": _COMPLETED,
    "function_call": _COMPLETED,
    "function_call_output": _COMPLETED | {"call_id": ""},
    "custom_tool_call": _COMPLETED,
    "custom_tool_call_output": _COMPLETED,
    "computer_call_output": _COMPLETED,
    "tool_search_call": _COMPLETED | {"call_id": None, "execution": "server"},
    "tool_search_output": _COMPLETED | {"call_id": None, "execution": "server"},
    "shell_call": _COMPLETED | {"environment": None},
    "shell_call_output": _COMPLETED | {"max_output_length": None},
    "reasoning": {"summary": []},
    "file_search_call": _COMPLETED | {"queries": []},
    "web_search_call": _COMPLETED | {"action": {"type": "search", "query": ""}},
    "computer_call": _COMPLETED | {"call_id": "", "pending_safety_checks": []},
    "code_interpreter_call": _COMPLETED | {"code": None, "container_id": "", "outputs": None},
    "image_generation_call": _COMPLETED | {"result": None},
    "local_shell_call": _COMPLETED | {"call_id": ""},
    "mcp_call": {"name": "", "arguments": "", "server_label": ""},
    "mcp_list_tools": {"server_label": "", "tools": []},
}


def new_id(kind: str) -> str:
    """Returns a new id for an item of this type."""
    return f"{PREFIXES.get(kind, 'item')}_{uuid.uuid4().hex}"


def is_reference(item: Item) -> bool:
    """True if the item is only a reference to a stored one; its `type` may be left out."""
    kind = item.get("type")
    has_no_message = not ("role" in item and "content" in item)
    return kind == "item_reference" or (kind is None and has_no_message)


def stored_form(sent: Item) -> JsonObject:
    """Returns the item as it is stored and listed."""
    kind = sent.get("type") or "message"
    item = without_nulls(sent)
    item["type"] = kind
    item["id"] = sent.get("id") or new_id(kind)
    if kind == "message":
        item["content"] = _parts(sent["content"], is_answer=sent["role"] == "assistant")
    elif isinstance(sent.get("output"), list):
        parts = sent["output"]
        item["output"] = [without_nulls(one) if isinstance(one, Mapping) else one for one in parts]
    if kind == "shell_call":
        item["action"] = {"timeout_ms": None, "max_output_length": None, **item["action"]}
    return {**_DEFAULTS.get(kind, {}), **without_fetched(item)}


def public_form(item: Item, include: Sequence[str] = ()) -> JsonObject:
    """Returns the item as clients see it: without fields that `include` does not select, and
    without fetched files."""
    public = without_fetched(item)
    if "file_search_call.results" not in include and item["type"] == "file_search_call":
        public["results"] = None
    if "code_interpreter_call.outputs" not in include and item["type"] == "code_interpreter_call":
        public["outputs"] = None
    if item["type"] == "reasoning":
        encrypted = public.pop("encrypted_content", None)
        if "reasoning.encrypted_content" in include and (encrypted or item.get("content")):
            public["encrypted_content"] = encrypted or encode_opaque(_reasoning(item))
    return public


def item_list(page: Page[StoredItem], include: Sequence[str] = ()) -> JsonObject:
    """Returns a page of items as the document's list object."""
    return {
        "object": "list",
        "data": [public_form(stored.item, include) for stored in page.items],
        "first_id": page.first_id or "",  # the document wants a string on an empty page too
        "last_id": page.last_id or "",
        "has_more": page.has_more,
    }


def messages_from(
    context_items: Sequence[Item], input_items: Sequence[Item], readers: Readers = NO_READERS
) -> list[JsonObject]:
    """Translates items to chat messages: `input_items` are those of the request, `context_items`
    those of the conversation; `readers` translate items of server tools, by type.

    Consecutive calls, and the reasoning and text before them, become one assistant's message.
    Raises `UnsupportedField` for an item that no local model can read.
    """
    messages: list[JsonObject] = []
    numbered = [("input", item) for item in context_items]
    numbered += [(f"input[{index}]", item) for index, item in enumerate(input_items)]
    read = [numbered[index] for index in reading_order([item for _, item in numbered])]
    for message in _messages(_without_unknown_requests(_without_interrupted(read)), readers):
        if messages and _continues(messages[-1], message):
            _join(messages[-1], message)
        else:
            messages.append(_with_copied_calls(message))
    return messages


def _parts(content: Any, *, is_answer: bool) -> list[JsonObject]:
    kind = "output_text" if is_answer else "input_text"
    parts = [{"type": kind, "text": content}] if isinstance(content, str) else content
    return [_part(part, is_answer=is_answer) for part in parts]


def _part(part: Item, *, is_answer: bool) -> JsonObject:
    if is_answer and part["type"] in ("input_text", "output_text"):
        return {"annotations": [], "logprobs": [], **part, "type": "output_text"}
    if not is_answer and part["type"] in ("output_text", "refusal"):
        return {"type": "input_text", "text": part.get("text") or part.get("refusal") or ""}
    return without_nulls(part)


def _without_interrupted(numbered: Sequence[tuple[str, Item]]) -> Iterator[tuple[str, Item]]:
    """Yields the items without calls that were cut off and have no output: their arguments may be
    no JSON, which templates and upstreams refuse."""
    answered = {item["call_id"] for _, item in numbered if item["type"] in _OUTPUTS}
    for where, item in numbered:
        is_cut = item["type"] in _CALLS and item.get("status") == "incomplete"
        if not is_cut or item["call_id"] in answered:
            yield where, item


def _without_unknown_requests(
    numbered: Iterable[tuple[str, Item]],
) -> Iterator[tuple[str, Item]]:
    """Yields the items. An MCP call whose approval request does not come before it stands alone: it
    has the name and the arguments, too."""
    request_ids = set()
    for where, item in numbered:
        if item["type"] == "mcp_approval_request":
            request_ids.add(item["id"])
        is_alone = item["type"] == "mcp_call" and (
            item.get("approval_request_id") not in request_ids
        )
        yield where, {**item, "approval_request_id": None} if is_alone else item


def _messages(numbered: Iterable[tuple[str, Item]], readers: Readers) -> Iterator[JsonObject]:
    for where, item in numbered:
        match item["type"]:
            case "message":
                content = _content(item["content"], f"{where}.content")
                yield {"role": item["role"], "content": content}
            case "function_call":
                yield _call(item, item["arguments"])
            case "custom_tool_call":
                yield _call(item, json.dumps({INPUT: item["input"]}))
            case "function_call_output" | "custom_tool_call_output":
                output = item["output"]
                content = output if isinstance(output, str) else _content(output, f"{where}.output")
                yield {"role": "tool", "tool_call_id": item["call_id"], "content": content}
            case "reasoning":
                yield {"role": "assistant", "reasoning_content": _reasoning(item)}
            case "compaction":
                yield from _summary_messages(item, f"{where}.encrypted_content")
            case kind if kind in readers:
                yield from (dict(message) for message in readers[kind](item))
            case kind:
                raise UnsupportedField(
                    f"Local models cannot read an item of type `{kind}`; leave it out.",
                    param=f"{where}.type",
                )


def _content(parts: Sequence[Item], where: str) -> str | list[JsonObject]:
    """Returns a string if all parts are text, or a list of chat parts."""
    chat_parts = [chat_part(part, f"{where}[{index}]") for index, part in enumerate(parts)]
    if all(part["type"] == "text" for part in chat_parts):
        return "\n".join(part["text"] for part in chat_parts)
    return chat_parts


def chat_part(part: Item, where: str) -> JsonObject:
    """Returns the part in a chat's form; `where` is its path, for errors in media parts."""
    if part["type"] == "refusal":
        return {"type": "text", "text": str(part["refusal"])}
    if "text" in part:
        return {"type": "text", "text": str(part["text"])}
    if part["type"] == "input_image":
        if not part.get("image_url"):
            raise InvalidRequest("An image needs `image_url` or `file_id`.", param=where)
        image = {"url": part["image_url"], "detail": part.get("detail")}
        return {"type": "image_url", "image_url": image, "where": where}
    raise UnsupportedField(
        f"A part of type `{part['type']}` cannot be shown to local models.", param=f"{where}.type"
    )


def _call(item: Item, arguments: str) -> JsonObject:
    name = chat_name(item["name"], item.get("namespace"))
    function = {"name": name, "arguments": arguments}
    call = {"id": item["call_id"], "type": "function", "function": function}
    return {"role": "assistant", "tool_calls": [call]}


def _reasoning(item: Item) -> str:
    """Returns the text of a reasoning item; empty if only another server can decode it."""
    content = item.get("encrypted_content")
    hidden = decode_opaque(content) if content and not item.get("content") else None
    parts = item.get("content") or item.get("summary") or ()
    return "\n".join(str(part["text"]) for part in parts) if hidden is None else hidden


def _summary_messages(item: Item, where: str) -> Iterator[JsonObject]:
    """Yields the messages of a summary. A summary that replaces items follows a message of the
    user, because many templates require one first."""
    compaction = parse_compaction(item)
    if compaction is None:
        raise UnsupportedField("This compaction is not one of this server's.", param=where)
    if compaction.kept is not None:
        yield {"role": "user", "content": "What was said before, in short?"}
        yield {"role": "assistant", "content": compaction.summary}
    else:
        content = f"In short, what was said before: {compaction.summary}"
        yield {"role": "assistant", "content": content}


def _continues(message: Item, following: Item) -> bool:
    """True if `following` belongs to the same assistant message: it has tool calls, or `message`
    has only reasoning."""
    if message["role"] != "assistant" or following["role"] != "assistant":
        return False
    return "tool_calls" in following or ("content" not in message and "tool_calls" not in message)


def _with_copied_calls(message: JsonObject) -> JsonObject:
    if "tool_calls" in message:
        message["tool_calls"] = list(message["tool_calls"])
    return message


def _join(message: JsonObject, following: JsonObject) -> None:
    """Merges `following` into `message`, whose list of calls grows in place. The text of `message`
    stays if `following` has none."""
    calls = following.pop("tool_calls", ())
    message.update(without_nulls(following))
    if calls:
        message.setdefault("tool_calls", []).extend(calls)


def conversation_of(body: "api.CreateResponse") -> str | None:
    """Returns the conversation's id from either of the document's two forms."""
    value = body.get("conversation")
    return value["id"] if isinstance(value, Mapping) else value
