"""The body of a response -> the body of the chat that answers it, and the fields that the response
repeats. The one place where the names of the two differ. Pure.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from llm_backend.controllers.responses.input.items import NO_READERS, Readers, messages_from
from llm_backend.controllers.responses.input.tools import public_tool
from llm_backend.errors import ApiError, InvalidRequest

__all__ = ["chat_body", "chat_messages", "echoed_fields", "translate_error_paths"]

Body = Mapping[str, Any]
Json = dict[str, Any]

# Fields that are a chat's under the same name.
SAME = (
    "model", "temperature", "top_p", "presence_penalty", "frequency_penalty", "parallel_tool_calls",
    "service_tier", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip
LOGPROBS = "message.output_text.logprobs"

# A chat's field, where a mistake is found -> the response's, where the client made it.
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
_FORMAT = re.compile(r"\.parameters\.properties\.input\.(pattern|x-lark)")  # a custom tool's


def chat_messages(
    body: Body,
    before: Sequence[Body],
    own: Sequence[Body],
    *,
    first: Sequence[Json] = (),
    readers: Readers = NO_READERS,
) -> list[Json]:
    """The messages of the chat that answers this response: `own` are the items of its input,
    `before` those that it goes on from, `first` what comes before all of them; `readers` are for
    items that only some know."""
    messages = [*first, *messages_from(before, own, readers)]
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    if not messages:
        raise InvalidRequest("There is nothing to answer: `input` is missing.", param="input")
    return messages


def chat_body(body: Body, messages: Sequence[Body], tools: Body) -> Json:
    """The chat with these messages and these fields about tools that answers this response."""
    chat: Json = {name: body[name] for name in SAME if body.get(name) is not None}
    chat |= {"messages": messages, **_limits(body), **_format(body), **tools}
    effort = (body.get("reasoning") or {}).get("effort")
    if effort is not None:
        chat["reasoning_effort"] = effort
    return chat


def echoed_fields(body: Body, *, is_stored: bool = True, passages_limit: int = 20) -> Json:
    """What a response object tells of its request, with the document's defaults; `passages_limit`
    is how many passages a search gives where the request does not say."""
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
        "text": _shown_text(body.get("text") or {}),
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": [public_tool(tool, passages_limit) for tool in body.get("tools") or ()],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": 1.0 if body.get("top_p") is None else body["top_p"],
        "truncation": body.get("truncation") or "disabled",
        **({} if body.get("user") is None else {"user": body["user"]}),
    }


def _shown_text(text: Body) -> Json:
    """What a response tells of its text's format, with all fields of a schema's."""
    form = text.get("format") or {"type": "text"}
    if form["type"] == "json_schema":
        form = {"description": None, **form, "strict": bool(form.get("strict"))}
    return {**text, "format": form}


@contextmanager
def translate_error_paths(places: Sequence[int] = ()) -> Iterator[None]:
    """Mistakes found in the chat's body are told by the names of the response's; `places` are those
    of its tools there."""
    try:
        yield
    except ApiError as error:
        if error.param is not None:
            error.param = _name(error.param, places)
        raise


def _name(param: str, places: Sequence[int]) -> str:
    if tool := _TOOL.match(param):
        rest = _FORMAT.sub(".format.definition", param[tool.end() :])
        return f"tools[{places[int(tool[1])]}]{rest}"
    for pattern, name in _NAMES:
        renamed, count = re.subn(rf"^{pattern}", name, param)
        if count:
            return renamed
    return param


def _limits(body: Body) -> Json:
    limits: Json = {}
    if body.get("max_output_tokens") is not None:
        limits["max_completion_tokens"] = body["max_output_tokens"]
    if body.get("top_logprobs") or LOGPROBS in (body.get("include") or ()):
        limits |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    return limits


def _format(body: Body) -> Json:
    text = body.get("text") or {}
    shown: Json = {}
    if text.get("verbosity"):
        shown["verbosity"] = text["verbosity"]
    form = text.get("format") or {}
    if form.get("type") == "json_schema":
        schema = {name: value for name, value in form.items() if name != "type"}
        shown["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif form:
        shown["response_format"] = form
    return shown
