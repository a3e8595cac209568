"""Prompt templates (`prompt`): configured messages with variables, by id.

The document has no operation that creates prompts, so `prompts` in the config file defines them.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.json_types import JsonObject
from llm_backend.settings.responses import PromptSettings

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

ReadPart = Callable[[Mapping[str, Any], str], Awaitable[JsonObject]]

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


async def prompt_messages(
    prompt: "api.Prompt", configured: Mapping[str, PromptSettings], read: ReadPart
) -> list[JsonObject]:
    """Returns the chat messages of a `prompt`; none if it is not given. `read` translates an image
    or file part, with its path, to a chat's part.

    Raises `NotFound` for a prompt that is not configured, `InvalidRequest` for unknown variables
    and for variables in a message that cannot hold them.
    """
    if prompt is None:
        return []
    template = _find_prompt(prompt, configured)
    values: Mapping[str, Any] = prompt.get("variables") or {}
    _check_names(template, values)
    _check_media_places(template, values)
    filled = {
        name: _text(value) if _is_text(value) else await read(value, _variable_path(name))
        for name, value in values.items()
    }
    return [
        {"role": message.role, "content": _fill(message.content, filled)}
        for message in template.messages
    ]


def _find_prompt(
    prompt: "api.PromptObject", configured: Mapping[str, PromptSettings]
) -> PromptSettings:
    template = configured.get(prompt["id"])
    if template is None or prompt.get("version") not in (None, template.version):
        version = "" if prompt.get("version") is None else f" of version `{prompt['version']}`"
        raise NotFound(
            f"There is no prompt `{prompt['id']}`{version}; prompts are set by `prompts` in the "
            "configuration file.",
            param="prompt.id" if template is None else "prompt.version",
            code="prompt_not_found",
        )
    return template


def _check_names(template: PromptSettings, values: Mapping[str, Any]) -> None:
    names = {name for message in template.messages for name in _VARIABLE.findall(message.content)}
    for name in sorted(names ^ values.keys()):
        problem = "is missing" if name in names else "is not a variable of this prompt"
        raise InvalidRequest(f"The variable `{name}` {problem}.", param=_variable_path(name))


def _check_media_places(template: PromptSettings, values: Mapping[str, Any]) -> None:
    """Raises `InvalidRequest` for an image or file in a message of the assistant."""
    texts = (message.content for message in template.messages if message.role == "assistant")
    for name in (name for content in texts for name in _VARIABLE.findall(content)):
        if not _is_text(values[name]):
            raise InvalidRequest(
                f"The variable `{name}` stands in a message of the assistant, which is text and "
                f"cannot hold `{values[name]['type']}`.",
                param=_variable_path(name),
            )


def _variable_path(name: str) -> str:
    return f"prompt.variables.{name}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or value["type"] == "input_text"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value["text"])


def _fill(content: str, values: Mapping[str, str | JsonObject]) -> str | list[JsonObject]:
    """Returns a string if all values are text, or a list of chat parts in order."""
    parts: list[JsonObject] = []
    text = ""
    for index, piece in enumerate(_VARIABLE.split(content)):
        value = values[piece] if index % 2 else piece  # odd pieces are names of variables
        if isinstance(value, str):
            text += value
        else:
            parts += [*_text_part(text), value]
            text = ""
    return [*parts, *_text_part(text)] if parts else text


def _text_part(text: str) -> list[JsonObject]:
    return [{"type": "text", "text": text}] if text else []
