"""Translation of the deprecated `functions` and `function_call` of chats to tools, and of calls
back to the deprecated form. Pure.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from llm_backend.backends.base import ChatDelta
from llm_backend.controllers.generation.field_paths import rename_fields
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


_TOOL = re.compile(r"tools\[(\d+)\]\.function\b")


def with_tools(body: "api.CreateChatCompletionRequest") -> "api.CreateChatCompletionRequest":
    """Returns the chat with `tools` in place of `functions`, limited to one call. Raises
    `InvalidRequest` for a chat that has both forms."""
    functions, choice = body.get("functions"), body.get("function_call")
    if not functions:
        if choice is not None:
            raise InvalidRequest("`function_call` needs `functions`.", param="function_call")
        return body
    _refuse_both(body)
    others: JsonObject = {
        name: value for name, value in body.items() if name not in ("functions", "function_call")
    }
    if choice is not None:
        others["tool_choice"] = (
            choice if isinstance(choice, str) else _named_choice(choice, functions)
        )
    tools = [{"type": "function", "function": function} for function in functions]
    changed = {**others, "tools": tools, "parallel_tool_calls": False}
    return cast("api.CreateChatCompletionRequest", changed)


def translate_function_errors(
    body: "api.CreateChatCompletionRequest",
) -> AbstractContextManager[None]:
    """Rewrites `param` of errors in the tools of `with_tools` to name the client's `functions`."""
    has_functions = bool(body.get("functions"))
    return rename_fields(lambda path: _TOOL.sub(r"functions[\1]", path) if has_functions else path)


async def as_function_calls(
    deltas: AsyncGenerator[ChatDelta, None],
) -> AsyncGenerator[ChatDelta, None]:
    """Yields the deltas with the first call in the deprecated form. Further calls are dropped,
    because that form has only one."""
    async with aclosing(deltas):
        async for delta in deltas:
            if not delta.tool_calls and delta.finish_reason is None:
                yield delta
            elif (translated := _to_deprecated(delta)) != ChatDelta(choice=delta.choice):
                yield translated


def _refuse_both(body: "api.CreateChatCompletionRequest") -> None:
    if body.get("tools") is not None:
        raise InvalidRequest(
            "`functions` is the deprecated form of `tools`; give one of them.", param="functions"
        )
    if body.get("tool_choice") is not None:
        raise InvalidRequest("`tool_choice` needs `tools`.", param="tool_choice")
    if body.get("parallel_tool_calls"):
        raise InvalidRequest(
            "`functions` are called one at a time; several calls need `tools`.",
            param="parallel_tool_calls",
        )


def _named_choice(
    choice: "api.ChatCompletionFunctionCallOption",
    functions: "list[api.ChatCompletionFunctions]",
) -> "api.ChatCompletionNamedToolChoice":
    if all(function["name"] != choice["name"] for function in functions):
        raise InvalidRequest(
            f"`{choice['name'][:80]}` is not among the `functions`.", param="function_call.name"
        )
    return {"type": "function", "function": {"name": choice["name"]}}


def _to_deprecated(delta: ChatDelta) -> ChatDelta:
    calls = tuple(replace(call, is_deprecated=True) for call in delta.tool_calls if not call.index)
    reason = "function_call" if delta.finish_reason == "tool_calls" else delta.finish_reason
    return replace(delta, tool_calls=calls, finish_reason=reason)
