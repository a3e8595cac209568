"""Requests to backends and their results, as frozen values independent of OpenAI's API.

OpenAI's names are used only in the controllers, the engine's tokens only below the backends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from llm_backend.backends.schemas import LoweredSchema, SchemaBudget
from llm_backend.engine.messages import Priority, Sampling, TokenLogprob
from llm_backend.json_types import JsonMapping

Message = JsonMapping
"""Chat message as in the API document, except its content, which is a `media.Content`."""


FUNCTION_NAME_LENGTH = 256
"""Maximum characters of a function's name. OpenAI allows 64; MCP's tools have longer names."""

NEUTRAL = Sampling()
"""Sampling from the model's unchanged distribution."""


@dataclass(frozen=True, kw_only=True)
class GenerationLimits:
    """Number of choices, and limits and stop conditions of each."""

    choices: int = 1
    best_of: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """Grammar that constrains every answer, and the request's `field` that it comes from."""

    text: str
    field: str


@dataclass(frozen=True, kw_only=True)
class JsonContent:
    """Schema that constrains the content of every answer, not its reasoning, and the request's
    `field` that it comes from; `lowered` maps its parts to paths of the client's schema."""

    schema: JsonMapping
    field: str
    lowered: LoweredSchema | None = None


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Chat request. `tools` are the API's function tools; empty if the client forbade calls. An
    answer may call `callable_names` (None: any); with `must_call` it has to. With
    `parallel_tool_calls` False it ends after its first call. `reasoning_effort` None: the model's
    default. A model without efforts ignores a given one, or refuses it if `must_take_effort`.
    `lowered_calls` are the parameters of strict functions, by name, for the grammar, and
    `schema_budget` is what these left for the other functions. `template_kwargs` are further
    variables of the chat template. `opening` is text that the answer continues; names of control
    tokens in it stand for these tokens. `prediction` is text that the answer may repeat. With
    `has_personality`, a chat without a system message gets the model's personality, or the one
    that `personality` names.
    """

    messages: Sequence[Message]
    has_personality: bool = True
    personality: str | None = None
    tools: Sequence[JsonMapping] = ()
    must_call: bool = False
    callable_names: frozenset[str] | None = None
    parallel_tool_calls: bool = True
    grammar: Grammar | JsonContent | None = None
    lowered_calls: Mapping[str, LoweredSchema] = field(default_factory=dict)
    schema_budget: SchemaBudget = field(default_factory=SchemaBudget)
    reasoning_effort: str | None = None
    must_take_effort: bool = True
    template_kwargs: JsonMapping = field(default_factory=dict)
    opening: str = ""
    prediction: str | None = None
    limits: GenerationLimits = GenerationLimits()
    sampling: Sampling = NEUTRAL
    priority: Priority = Priority.INTERACTIVE


@dataclass(frozen=True, kw_only=True)
class TextPrompt:
    """Text completion request: a prompt as text or as tokens, for infill before `suffix` if there
    is one; `echo` returns the prompt first.
    """

    prompt: str | Sequence[int]
    suffix: str | None = None
    echo: bool = False
    grammar: Grammar | None = None
    limits: GenerationLimits = GenerationLimits()
    sampling: Sampling = NEUTRAL


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens and seconds of one request. `completion_tokens` sums all choices, including reasoning.
    `image_tokens` and `audio_tokens` are parts of `prompt_tokens`, `cached_image_tokens` and
    `cached_audio_tokens` parts of `cached_tokens`.

    Speculative decoding: of `drafted_tokens`, `accepted_tokens` were used. The tokens of the
    request's prediction are counted for each choice, as right if generated, otherwise as wrong.

    `queue_s` ends when the request gets its slot, then `prompt_s` at its first delta, then
    `generation_s` at its last one.
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
    image_tokens: int = 0
    audio_tokens: int = 0
    cached_image_tokens: int = 0
    cached_audio_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Sums the usage of two sequential requests."""
        sums = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)
        }
        return Usage(**sums)

    @property
    def text_tokens(self) -> int:
        """Prompt tokens without media; at least 0, because an upstream may report more media
        tokens."""
        return max(0, self.prompt_tokens - self.image_tokens - self.audio_tokens)

    @property
    def tokens_per_second(self) -> float:
        """Decoding rate after the first token; 0 if there are no further ones."""
        tokens = max(0, self.completion_tokens - 1)
        return tokens / self.generation_s if self.generation_s else 0.0


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """Delta of a call: its start (`id` and `name`) or a chunk of `arguments`. The arguments are
    JSON, and plain text for a tool that `is_custom`. A call that `is_deprecated` is sent as the
    message's `function_call`."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    is_custom: bool = False
    is_deprecated: bool = False


@dataclass(frozen=True, kw_only=True)
class TextDelta:
    """Chunk of one choice's text; the last one has `finish_reason` and possibly no text."""

    choice: int
    text: str = ""
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ChatDelta:
    """Chunk of one choice: reasoning, content, a refusal, tool calls, or the end
    (`finish_reason`, and the client's stop string that matched). Only upstreams send refusals apart
    from content, and only local models report the stop string."""

    choice: int
    reasoning: str = ""
    content: str = ""
    refusal: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[TokenLogprob] = ()
    finish_reason: str | None = None
    stop_sequence: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Model as listed by `GET /v1/models`. `created_at` is in Unix seconds; `more` are further
    keys and their values.
    """

    id: str
    created_at: int
    owned_by: str
    more: tuple[tuple[str, Any], ...] = ()


class Meter(Protocol):
    """Counts the usage of one request; access control implements it. `fairness_key` identifies the
    caller in fair queues."""

    @property
    def fairness_key(self) -> str: ...
    def check_model(self, model: str) -> None: ...
    def count_answer(self, usage: Usage) -> None: ...
    def count_units(self, units: int) -> None: ...
    def count_embedding(self, model: str, tokens: int) -> None: ...
    def count_images(self, model: str, images: int) -> None: ...
