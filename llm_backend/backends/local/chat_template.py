"""Chat template: renders a conversation to a prompt with the model's own Jinja template.

Templates come from untrusted files, so they run in Jinja's immutable sandbox and their output is
bounded.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from llm_backend.backends.base import Message
from llm_backend.backends.local.control_tokens import ControlTokenGuard
from llm_backend.backends.local.template_messages import PROBE, PROBE_TEXT, MessageStyle
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.exact_json import encode_in_pieces
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from jinja2 import Environment

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Default for models without a template."""

_PROMPT_CHARACTERS = 64 * 1024 * 1024


class _TemplateRaised(Exception):
    """Error raised by the template itself, with `raise_exception`."""


def _raise_exception(message: str) -> None:
    raise _TemplateRaised(message)


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    def encode(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    # With an indent, the encoder is Python code, beside which other threads can run.
    return encode(value) if indent is not None else encode_in_pieces(value, encode, ", ", ": ")


@cache
def _template_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions that a template can raise on messages that it does not support."""
    from jinja2 import TemplateError

    return (
        TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError,
        AssertionError, RecursionError, MemoryError,
    )  # fmt: skip


def _rendering_errors() -> tuple[type[Exception], ...]:
    return (_TemplateRaised, *_template_errors())


def _compiler_errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions of an invalid source. Jinja computes constants, and compiles to
    Python, whose compiler has limits of its own."""
    return (SyntaxError, *_template_errors())


def _environment() -> "Environment":
    """Creates the sandbox. Jinja is imported for the first template: a server without local models
    saves its 3 MB."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class ChatTemplate:
    """Compiled chat template; `render` is pure except for the date that some templates use.

    Raises `InvalidRequest` for an invalid source.
    """

    def __init__(self, source: str | None, *, bos_token: str = "", eos_token: str = "") -> None:
        environment = _environment()
        from jinja2 import meta

        self.source = source or CHATML
        try:
            self._template = environment.from_string(self.source)
            self.variables = meta.find_undeclared_variables(environment.parse(self.source))
        except _compiler_errors() as error:
            raise InvalidRequest(
                f"The model's chat template is not valid Jinja: {error}; load another model.",
                param="model",
            ) from error
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    @cached_property
    def _style(self) -> MessageStyle:
        try:
            arguments_are_text = "'probe_key'" in self._render(PROBE)
        except TypeError:
            arguments_are_text = True
        except _rendering_errors():
            arguments_are_text = False  # the template rejects another part of the probe
        return MessageStyle.detect(
            self.source,
            arguments_are_text=arguments_are_text,
            content_is_parts=not self._renders_content(PROBE_TEXT)
            and self._renders_content([{"type": "text", "text": PROBE_TEXT}]),
        )

    def _renders_content(self, content: object) -> bool:
        """Returns True if the template renders a user's content of this form."""
        try:
            return PROBE_TEXT in self._render([{"role": "user", "content": content}])
        except _rendering_errors():
            return False

    @property
    def renders_tools(self) -> bool:
        """True if the template renders tools."""
        return "tools" in self.variables or self._style.tools_in_system

    def writes_bos(self, prompt: str) -> bool:
        """Returns True if the prompt begins with the BOS token, so that it must not be added."""
        bos_token = self._tokens["bos_token"]
        return bool(bos_token) and prompt.startswith(bos_token)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonMapping] = (),
        variables: JsonMapping | None = None,
        guard: ControlTokenGuard | None = None,
    ) -> str:
        """Renders the prompt up to the assistant's turn. Raises `InvalidRequest`, for example for
        `tools` that the template does not render: the model was not trained to call tools.

        `variables` are further variables of the template; `guard` escapes control tokens in user
        text.
        """
        if tools and not self.renders_tools:
            raise UnsupportedField(
                "This model's chat template knows no tools; load a model that was trained on them.",
                param="tools",
            )
        if guard is not None:
            tools, variables = guard.escape(tools), guard.escape(variables or {})
        try:
            return self._render(self._style.convert(messages, tools, guard), tools, variables)
        except _TemplateRaised as error:
            raise InvalidRequest(
                f"The model's chat template refused the messages: {error}", param="messages"
            ) from error
        except _template_errors() as error:
            raise InvalidRequest(
                f"The model's chat template cannot render these messages: {error}", param="messages"
            ) from error

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonMapping] = (),
        variables: JsonMapping | None = None,
    ) -> str:
        known = {"messages": messages, "tools": list(tools) or None, "add_generation_prompt": True}
        return _join_bounded(
            self._template.generate({**(variables or {}), **known, **self._tokens})
        )


def _join_bounded(pieces: Iterable[str]) -> str:
    """Joins the pieces. Raises `ValueError` for more than `_PROMPT_CHARACTERS`."""
    joined, length = [], 0
    for piece in pieces:
        joined.append(piece)
        length += len(piece)
        if length > _PROMPT_CHARACTERS:
            raise ValueError(f"the prompt would have more than {_PROMPT_CHARACTERS} characters")
    return "".join(joined)
