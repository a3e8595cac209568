"""`prompt`: messages that stand in the settings, under an id, with variables in them. Pure.

The document has no operation that makes prompts, so they are configured: `prompts` in the file.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.settings.prompt import PromptSettings

__all__ = ["prompt_messages"]

Json = dict[str, Any]

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def prompt_messages(
    prompt: Mapping[str, Any] | None, configured: Mapping[str, PromptSettings]
) -> list[Json]:
    """The messages that `prompt` means, as a chat has them; none where it is not given.

    Raises `NotFound` for one that is not configured, `InvalidRequest` for variables that are not
    its.
    """
    if prompt is None:
        return []
    found = configured.get(prompt["id"])
    if found is None or prompt.get("version") not in (None, found.version):
        version = "" if prompt.get("version") is None else f" of version `{prompt['version']}`"
        raise NotFound(
            f"There is no prompt `{prompt['id']}`{version}; prompts are set by `prompts` in the "
            "configuration file.",
            param="prompt.id" if found is None else "prompt.version",
            code="prompt_not_found",
        )
    values = prompt.get("variables") or {}
    texts = {name: _text(value, name) for name, value in values.items()}
    _check_names(found, texts)
    return [
        {"role": message.role, "content": _filled(message.content, texts)}
        for message in found.messages
    ]


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if value["type"] == "input_text":
        return str(value["text"])
    raise InvalidRequest(
        f"A variable of a local model's prompt is text, not `{value['type']}`.",
        param=f"prompt.variables.{name}",
    )


def _check_names(found: PromptSettings, given: Mapping[str, str]) -> None:
    names = {name for message in found.messages for name in _names(message.content)}
    for name in sorted(names ^ given.keys()):
        problem = "is missing" if name in names else "is none of this prompt's"
        raise InvalidRequest(f"The variable `{name}` {problem}.", param=f"prompt.variables.{name}")


def _names(content: str) -> Sequence[str]:
    return _VARIABLE.findall(content)


def _filled(content: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: values[found[1]], content)
