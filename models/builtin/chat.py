"""Renders conversations with the model's chat template, the way a server does."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]
TEMPLATE = Path(__file__).parent / "chat_template.jinja"


class Chat:
    """The compiled template; `sort_keys` is how the server at hand writes JSON."""

    def __init__(self, *, sort_keys: bool = False) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(
            value, ensure_ascii=False, sort_keys=sort_keys
        )
        self._template: Template = environment.from_string(TEMPLATE.read_text("utf-8"))

    def whole(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
        """The conversation as text, ended."""
        return self._template.render(messages=messages, tools=list(tools) or None)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> str:
        """The conversation up to the place where the assistant goes on."""
        return self._template.render(
            messages=messages, tools=list(tools) or None, add_generation_prompt=True
        )
