"""Converts messages of the API to the form that a chat template expects. Pure.

Templates agree on the form of a message and differ in tool calls: some serialise the arguments to
JSON themselves, some expect JSON text, some expect ids of a special form. A template does not
declare this: its source is searched, and probes are rendered.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_backend import exact_json
from llm_backend.backends.base import Message
from llm_backend.backends.local.control_tokens import ControlTokenGuard
from llm_backend.json_types import JsonMapping, JsonObject, without_nulls

_NINE_CHARACTERS = re.compile(r"length\s*(!=|==)\s*9\b")
PROBE: Sequence[Message] = (
    {"role": "user", "content": "?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "probe1234",
                "type": "function",
                "function": {"name": "probe", "arguments": {"probe_key": "probe_value"}},
            }
        ],
    },
)
"""Probe: a call with its arguments as a mapping. A template that expects text fails, or writes
Python's `repr`, with `'probe_key'` in it."""


PROBE_TEXT = "probe_text"
"""Probe: a text that is in the output if the template supports this form of content."""


@dataclass(frozen=True, kw_only=True)
class MessageStyle:
    """Form of messages that a template expects. `arguments_are_text`: JSON text, not a mapping.
    `short_ids`: nine letters and digits (Mistral). `numbered_ids`: `functions.name:0` (Kimi).
    `tools_in_system`: the tools as JSON in the system message (Phi-4). `single_calls`: one call per
    message (Llama). `content_is_parts`: a list of parts, not a string.
    """

    arguments_are_text: bool = False
    short_ids: bool = False
    numbered_ids: bool = False
    tools_in_system: bool = False
    single_calls: bool = False
    content_is_parts: bool = False

    @classmethod
    def detect(
        cls, source: str, *, arguments_are_text: bool, content_is_parts: bool = False
    ) -> "MessageStyle":
        """Detects the style from a template's source; the forms of arguments and content are
        detected by rendering `PROBE` and `PROBE_TEXT`."""
        return cls(
            arguments_are_text=arguments_are_text,
            content_is_parts=content_is_parts,
            short_ids=_NINE_CHARACTERS.search(source) is not None,
            numbered_ids="<|tool_call_argument_begin|>" in source,
            tools_in_system="message['tools']" in source or "message.tools" in source,
            single_calls="single tool-call" in source,
        )

    def convert(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonMapping] = (),
        guard: ControlTokenGuard | None = None,
    ) -> list[JsonObject]:
        """Converts the messages: content in the template's form, calls and their results with the
        same ids, results with the name of the function. `guard` escapes control tokens in text."""
        names: dict[str, str] = {}
        ids: dict[str, str] = {}
        converted = []
        for message in _split_calls(messages) if self.single_calls else messages:
            for call in message.get("tool_calls") or ():
                ids[call["id"]] = self._convert_id(call, len(ids))
                names[call["id"]] = call["function"]["name"]
            converted_message = self._convert_message(message, ids, names)
            converted.append(
                guard.escape(converted_message) if guard is not None else converted_message
            )
        if tools and self.tools_in_system:
            converted = _with_tools(converted, tools)
        return converted

    def _convert_message(
        self, message: Message, ids: Mapping[str, str], names: Mapping[str, str]
    ) -> JsonObject:
        converted = without_nulls(message)
        converted["content"] = self._convert_content(message.get("content") or "")
        if calls := converted.get("tool_calls"):
            converted["tool_calls"] = [self._convert_call(call, ids) for call in calls]
        if (call_id := converted.get("tool_call_id")) is not None:
            converted["tool_call_id"] = ids.get(call_id, call_id)
            converted.setdefault("name", names.get(call_id, ""))
        if (thought := converted.get("reasoning_content")) and not (calls and converted["content"]):
            converted["thinking"] = thought  # for gpt-oss, whose template rejects both beside calls
        return converted

    def _convert_content(self, text: str) -> Any:
        if not self.content_is_parts:
            return text
        return [{"type": "text", "text": text}] if text else []

    def _convert_call(self, call: JsonMapping, ids: Mapping[str, str]) -> JsonObject:
        function = dict(call["function"])
        if not self.arguments_are_text:
            function["arguments"] = _parse_arguments(function["arguments"])
        return {**call, "id": ids[call["id"]], "function": function}

    def _convert_id(self, call: JsonMapping, index: int) -> str:
        own_id = str(call["id"])
        if self.numbered_ids:
            return f"functions.{call['function']['name']}:{index}"
        if self.short_ids and not (len(own_id) == 9 and own_id.isascii() and own_id.isalnum()):
            return hashlib.sha256(own_id.encode("utf-8", errors="replace")).hexdigest()[:9]
        return own_id


def _split_calls(messages: Sequence[Message]) -> Iterator[Message]:
    """Yields the messages with each call in a separate one, followed by its result."""
    start = 0
    while start < len(messages):
        message, end = messages[start], start + 1
        calls = message.get("tool_calls") or ()
        if len(calls) < 2:
            yield message
        else:
            while end < len(messages) and messages[end]["role"] == "tool":
                end += 1
            yield from _split_message(message, calls, messages[start + 1 : end])
        start = end


def _split_message(
    message: Message, calls: Sequence[JsonMapping], results: Sequence[Message]
) -> Iterator[Message]:
    found: dict[str, list[Message]] = {call["id"]: [] for call in calls}
    others: list[Message] = []
    for result in results:
        found.get(result.get("tool_call_id", ""), others).append(result)
    for index, call in enumerate(calls):
        first = message if index == 0 else {"role": message["role"], "content": None}
        yield {**first, "tool_calls": [call]}
        yield from found[call["id"]]
    yield from others


def _parse_arguments(arguments: str) -> Any:
    """Parses arguments; invalid JSON, which a model wrote, is returned as text."""
    try:
        return json.loads(arguments or "{}", parse_float=exact_json.read_decimal)
    except (ValueError, RecursionError):
        return arguments


def _with_tools(messages: list[JsonObject], tools: Sequence[JsonMapping]) -> list[JsonObject]:
    text = json.dumps([tool["function"] for tool in tools], ensure_ascii=False)
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "tools": text}, *messages[1:]]
    return [{"role": "system", "content": "", "tools": text}, *messages]
