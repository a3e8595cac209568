"""What a caller asks of a model and what comes back, in our own words: frozen values.

OpenAI's names stop at the controllers; the engine's tokens start below the backends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from llm_backend.backends.local.schemas import Followed
from llm_backend.engine.messages import FinishReason, Priority, Sampling, TokenLogprob

__all__ = [
    "FUNCTION_NAME_LENGTH",
    "Chat",
    "ChatDelta",
    "FinishReason",
    "GenerationLimits",
    "Grammar",
    "JsonContent",
    "Message",
    "ModelCard",
    "Priority",
    "Sampling",
    "TextDelta",
    "TextPrompt",
    "TokenLogprob",
    "ToolCall",
    "Usage",
]

Message = Mapping[str, Any]
"""A chat message as the document describes it, but for its content, which is a `media.Content`."""


FUNCTION_NAME_LENGTH = 256
"""Characters of a function's name at most. OpenAI's end at 64; MCP's tools have longer ones."""

NEUTRAL = Sampling()
"""Changes nothing of the model's distribution."""


@dataclass(frozen=True, kw_only=True)
class GenerationLimits:
    """How many answers, and where each ends."""

    choices: int = 1
    best_of: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """What every answer must follow, as the engine takes it, and the client's name for it."""

    text: str
    field: str


@dataclass(frozen=True, kw_only=True)
class JsonContent:
    """The schema that the content of every answer must follow, what is thought before it apart, and
    the client's name for it; `followed` tells its places in the client's own."""

    schema: Mapping[str, Any]
    field: str
    followed: Followed | None = None


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Messages to be answered. `tools` are the document's function tools; empty where the caller
    forbade them. An answer calls one of `callable_names` (None: any), and `must_call` if so. With
    `parallel_tool_calls` False it ends after its first call. `reasoning_effort` None leaves it to
    the model; unless it `must_take_effort`, a model that does not know it passes it over.
    `template_switches` are further variables of its chat template. `prediction` is what
    the answer may repeat. `has_personality` lets the model's speak where the system does not, or
    the one that `personality` names.
    """

    messages: Sequence[Message]
    has_personality: bool = True
    personality: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    must_call: bool = False
    callable_names: frozenset[str] | None = None
    parallel_tool_calls: bool = True
    grammar: Grammar | JsonContent | None = None
    reasoning_effort: str | None = None
    must_take_effort: bool = True
    template_switches: Mapping[str, Any] = field(default_factory=dict)
    prediction: str | None = None
    limits: GenerationLimits = GenerationLimits()
    sampling: Sampling = NEUTRAL
    priority: Priority = Priority.INTERACTIVE


@dataclass(frozen=True, kw_only=True)
class TextPrompt:
    """A prompt to be continued, as text or as tokens, towards `suffix` if there is one; `echo`
    gives it back first.
    """

    prompt: str | Sequence[int]
    suffix: str | None = None
    echo: bool = False
    grammar: Grammar | None = None
    limits: GenerationLimits = GenerationLimits()
    sampling: Sampling = NEUTRAL


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens and seconds of one request; `completion_tokens` sums all choices, reasoning
    included. Of `prompt_tokens`, and of the cached ones among them, so many are places of pictures
    and of sounds.

    `drafted_tokens` were computed ahead and `accepted_tokens` of them used. Of the prediction's
    tokens, for each choice, those that came are right ones and the others wrong.

    `queue_s` lasts until it got its slot, `prompt_s` from there to its first delta, `generation_s`
    from there to its last.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    right_prediction_tokens: int = 0
    wrong_prediction_tokens: int = 0
    queue_s: float = 0.0
    prompt_s: float = 0.0
    generation_s: float = 0.0
    picture_tokens: int = 0
    sound_tokens: int = 0
    cached_picture_tokens: int = 0
    cached_sound_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """That of both requests, one after the other."""
        sums = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)
        }
        return Usage(**sums)

    @property
    def text_tokens(self) -> int:
        """Those of the prompt that are neither; an upstream may tell more of these than of all."""
        return max(0, self.prompt_tokens - self.picture_tokens - self.sound_tokens)

    @property
    def tokens_per_second(self) -> float:
        """Generated after the first one; 0 where there are none."""
        return (self.completion_tokens - 1) / self.generation_s if self.generation_s else 0.0


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call that begins (with `id` and `name`) or goes on (with a piece of `arguments`). Of a
    tool that `is_custom` these are its text, and no JSON. One that `is_deprecated` is told as the
    `function_call` of its message."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_custom: bool = False
    is_deprecated: bool = False


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """A piece of one choice's text; the last one has `finish_reason` and, maybe, no text."""

    choice: int
    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatDelta:
    """A piece of one choice: reasoning, content, a refusal, tool calls, or the end
    (`finish_reason`). Only upstreams refuse in words that are no content."""

    choice: int
    reasoning: str = ""
    content: str = ""
    refusal: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model as `GET /v1/models` lists it. `created_at` is in unix seconds; `more` are further
    keys and their values.
    """

    id: str
    created_at: int
    owned_by: str
    more: tuple[tuple[str, Any], ...] = ()
