"""Translation of a response's body to the chat request that answers it, and the request fields that
the response object repeats. No other module translates field names of responses. Pure.
"""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, cast

from llm_backend.controllers.generation.field_paths import rename_fields
from llm_backend.controllers.response_items.items import (
    LOGPROBS,
    NO_READERS,
    Readers,
    messages_from,
)
from llm_backend.controllers.responses.input.call_outputs import join_outputs
from llm_backend.controllers.responses.input.tools import public_tool
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


# Fields that have the same name in a chat request.
_SAME_FIELDS = (
    "model", "temperature", "top_p", "presence_penalty", "frequency_penalty", "parallel_tool_calls",
    "service_tier", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip

# Fields of a chat request, and their names in a response, for `param` of errors.
_NAMES = (
    (r"messages\b", "input"),
    (r"max_completion_tokens\b", "max_output_tokens"),
    (r"reasoning_effort\b", "reasoning.effort"),
    (r"response_format\.json_schema\b", "text.format"),
    (r"response_format\b", "text.format"),
    (r"tool_choice\.function\b", "tool_choice"),
    (r"tool_choice\.allowed_tools\b", "tool_choice"),
    (r"verbosity\b", "text.verbosity"),
)
_TOOL = re.compile(r"tools\[(\d+)\](\.function\b)?")
# The path in a function of the format of a custom tool.
_FORMAT = re.compile(r"\.parameters\.properties\.input\.(pattern|x-lark)")


def chat_messages(
    body: "api.CreateResponse",
    context_items: Sequence[JsonMapping],
    input_items: Sequence[JsonMapping],
    *,
    leading_messages: Sequence[JsonObject] = (),
    readers: Readers = NO_READERS,
) -> list[JsonObject]:
    """Returns the messages of the chat that answers this response: `leading_messages`, the
    conversation (`context_items`) and the response's input (`input_items`). `readers` translate
    items of server tools."""
    items = messages_from(context_items, input_items, readers)
    messages = [*leading_messages, *join_outputs(items)]
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    if not messages:
        raise InvalidRequest("There is nothing to answer: `input` is missing.", param="input")
    return messages


def chat_body(
    body: "api.CreateResponse", messages: Sequence[JsonMapping], tools: JsonMapping
) -> "api.CreateChatCompletionRequest":
    """Returns the chat request with these messages and fields about tools."""
    fields: JsonMapping = body
    chat: JsonObject = {name: fields[name] for name in _SAME_FIELDS if fields.get(name) is not None}
    chat |= {"messages": messages, **_limits(body), **_format(body), **tools}
    effort = (body.get("reasoning") or {}).get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    return cast("api.CreateChatCompletionRequest", chat)


def echoed_fields(
    body: "api.CreateResponse", *, is_stored: bool = True, passages_limit: int = 20
) -> JsonObject:
    """Returns the request fields that a response object repeats, with the document's defaults;
    `passages_limit` is the default number of search results."""
    reasoning = body.get("reasoning") or {}
    return {
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "prompt": body.get("prompt"),
        "prompt_cache_key": body.get("prompt_cache_key"),
        "prompt_cache_retention": body.get("prompt_cache_retention"),
        "reasoning": {
            "effort": reasoning.get("effort"),
            "summary": reasoning.get("summary") or reasoning.get("generate_summary"),
        },
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "flex" if body.get("service_tier") == "flex" else "default",
        "store": is_stored,
        "presence_penalty": body.get("presence_penalty") or 0.0,
        "frequency_penalty": body.get("frequency_penalty") or 0.0,
        "temperature": 1.0 if body.get("temperature") is None else body["temperature"],
        "text": _echo_text(body.get("text") or {}),
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [public_tool(tool, passages_limit) for tool in body.get("tools") or ()],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": body.get("truncation") or "disabled",
        **({} if body.get("user") is None else {"user": body["user"]}),
    }


def _echo_text(text: "api.ResponseTextParam") -> JsonObject:
    """Returns the response's `text` field, with all fields of a JSON schema's format."""
    form = text.get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        form = {"description": None, **form, "strict": bool(form.get("strict"))}
    return {**text, "format": form}


def translate_error_paths(indices: Sequence[int] = ()) -> AbstractContextManager[None]:
    """Rewrites `param` of errors from names of the chat request to those of the response.
    `indices` has, for each tool of the chat, its index in the `tools` of the response."""
    return rename_fields(partial(_name, indices=indices))


def _name(param: str, indices: Sequence[int]) -> str:
    if tool := _TOOL.match(param):
        rest = _FORMAT.sub(".format.definition", param[tool.end() :])
        return f"tools[{indices[int(tool[1])]}]{rest}"
    for pattern, name in _NAMES:
        replaced, count = re.subn(rf"^{pattern}", name, param)
        if count:
            return replaced
    return param


def _limits(body: "api.CreateResponse") -> JsonObject:
    limits: JsonObject = {}
    if body.get("max_output_tokens") is not None:
        limits["max_completion_tokens"] = body["max_output_tokens"]
    if body.get("top_logprobs") or LOGPROBS in (body.get("include") or ()):
        limits |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return limits


def _format(body: "api.CreateResponse") -> JsonObject:
    text = body.get("text") or {}
    fields: JsonObject = {}
    if text.get("verbosity"):
        fields["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is not None and form["type"] == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form:
        fields["response_format"] = form
    return fields
