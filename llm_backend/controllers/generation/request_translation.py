"""Translation of request bodies to generation requests for backends. All of OpenAI's field names
are translated here; an unsupported field is refused by name, never dropped. Pure.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_backend.backends.base import Chat, GenerationLimits, Grammar, TextPrompt
from llm_backend.controllers.generation.custom_calls import translate_error_names, with_functions
from llm_backend.controllers.generation.field_aliases import UNLIMITED
from llm_backend.controllers.generation.flat_messages import flatten_messages
from llm_backend.controllers.generation.structured_output import StructuredOutput
from llm_backend.controllers.generation.supported_fields import (
    describe_model,
    is_hint,
    knows_reasoning_effort,
    refuse_unsupported_fields,
)
from llm_backend.controllers.generation.tool_choice import tool_choice_of
from llm_backend.engine.messages import Priority, Sampling
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


SAMPLING_FIELDS = {
    "temperature", "top_p", "top_k", "min_p", "typical_p", "xtc_probability", "xtc_threshold",
    "mirostat", "mirostat_tau", "mirostat_eta", "repeat_penalty", "repeat_last_n",
    "frequency_penalty", "presence_penalty", "dry_multiplier", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "dry_sequence_breakers", "logit_bias", "seed",
}  # fmt: skip
SHARED_FIELDS = SAMPLING_FIELDS | {
    "model", "n", "stop", "stop_token_ids", "stream", "stream_options", "max_tokens", "min_tokens",
    "logprobs", "ignore_eos", "grammar",
    "user",  # identifies the end user; has no effect
}  # fmt: skip
WINDOW_FIELDS = {"repeat_last_n", "dry_penalty_last_n"}
CHAT_FIELDS = SHARED_FIELDS | {
    "messages", "response_format", "max_completion_tokens", "top_logprobs", "tools", "tool_choice",
    "parallel_tool_calls", "store", "metadata", "service_tier", "reasoning_effort",
    "chat_template_kwargs", "prediction", "personality",
    "moderation", "truncation",  # handled by the controller
    "safety_identifier", "prompt_cache_key",  # identify user and cache; have no effect
}  # fmt: skip
COMPLETION_FIELDS = SHARED_FIELDS | {"prompt", "suffix", "best_of", "echo"}

TOKENS_END = 2**31  # the engine's token ids have 32 bits
MAX_INTEGER = 2**31 - 1
RESERVED_VARIABLES = {
    "messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "raise_exception",
    "strftime_now",
}  # fmt: skip

NEUTRAL_VALUES: Mapping[str, Collection[Any]] = {
    "modalities": [["text"]],
    "verbosity": ["medium"],
    "cache_prompt": [True],
    "id_slot": [-1],
    "n_keep": [0, -1],
}
"""Values of unsupported fields that ask for the default behaviour."""


def chat_from(
    body: "api.CreateChatCompletionRequest",
    *,
    choices_limit: int,
    structure: StructuredOutput | None = None,
) -> Chat:
    """Returns the chat request of a body, constrained by `structure`; raises `InvalidRequest` with
    the field's name."""
    with translate_error_names(body):
        return _chat_from(with_functions(body), choices_limit, structure or StructuredOutput())


def _chat_from(
    body: "api.CreateChatCompletionRequest",
    choices_limit: int,
    structure: StructuredOutput,
) -> Chat:
    check_supported_fields(body, CHAT_FIELDS)
    choice = tool_choice_of(body)
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        raise InvalidRequest("`top_logprobs` needs `logprobs: true`.", param="top_logprobs")
    logprobs = (_integer(body, "top_logprobs") or 0) if body.get("logprobs") else None
    has_newer_name = body.get("max_completion_tokens") is not None
    max_name = "max_completion_tokens" if has_newer_name else "max_tokens"
    return Chat(
        messages=flatten_messages(body["messages"]),
        personality=body.get("personality"),
        tools=choice.tools,
        must_call=choice.must_call,
        callable_names=choice.names,
        parallel_tool_calls=body.get("parallel_tool_calls") is not False,
        reasoning_effort=body.get("reasoning_effort"),
        must_take_effort=not knows_reasoning_effort(body["model"]),
        template_kwargs=_template_kwargs(body),
        prediction=_prediction(body),
        grammar=structure.grammar,
        lowered_calls=structure.lowered_calls,
        schema_budget=structure.budget,
        limits=GenerationLimits(
            choices=_choices(body, choices_limit),
            max_tokens=_positive(max_name, _integer_or_unlimited(body, max_name)),
            min_tokens=_integer(body, "min_tokens") or 0,
            stop=_stop(body),
            stop_token_ids=_stop_tokens(body),
            ignore_eos=bool(body.get("ignore_eos")),
        ),
        sampling=_sampling(body, logprobs),
        priority=Priority.BATCH if body.get("service_tier") == "flex" else Priority.INTERACTIVE,
    )


def prompts_from(
    body: "api.CreateCompletionRequest", *, choices_limit: int, prompts_limit: int
) -> list[TextPrompt]:
    """Returns the prompts of a body; raises `InvalidRequest` with the field's name."""
    check_supported_fields(body, COMPLETION_FIELDS)
    choices = _choices(body, choices_limit)
    best_of = _best_of(body, choices, choices_limit)
    max_tokens = 16 if body.get("max_tokens") is None else _integer_or_unlimited(body, "max_tokens")
    limits = GenerationLimits(
        choices=choices,
        best_of=best_of,
        max_tokens=max_tokens,
        min_tokens=_integer(body, "min_tokens") or 0,
        stop=_stop(body),
        stop_token_ids=_stop_tokens(body),
        ignore_eos=bool(body.get("ignore_eos")),
    )
    sampling = _sampling(body, _integer(body, "logprobs"))
    grammar = body.get("grammar")
    prompts = _prompts(body.get("prompt"))
    if len(prompts) > prompts_limit:
        raise InvalidRequest(
            f"{len(prompts)} prompts were given; this server takes {prompts_limit} at most.",
            param="prompt",
        )
    return [
        TextPrompt(
            prompt=prompt,
            suffix=body.get("suffix") or None,
            echo=bool(body.get("echo")),
            grammar=None if grammar is None else Grammar(text=grammar, field="grammar"),
            limits=limits,
            sampling=sampling,
        )
        for prompt in prompts
    ]


def check_supported_fields(body: JsonMapping, supported: Collection[str]) -> None:
    """Raises `UnsupportedField` for an unsupported field that has an effect."""
    refuse_unsupported_fields(
        body,
        supported,
        neutral=NEUTRAL_VALUES,
        is_neutral=lambda name, value: is_hint(name, value, body["model"]),
        by=describe_model(body),
    )
    options = body.get("stream_options") or {}
    if options and not body.get("stream"):
        raise InvalidRequest("`stream_options` needs `stream: true`.", param="stream_options")


def _prediction(body: JsonMapping) -> str | None:
    """Returns the predicted output, whose parts are joined to one text."""
    prediction = body.get("prediction")
    if prediction is None or isinstance(prediction["content"], str):
        return prediction and prediction["content"]
    return "".join(part["text"] for part in prediction["content"])


def _sampling(body: JsonMapping, logprobs: int | None) -> Sampling:
    neutral = Sampling()
    values = {
        name: body[name]
        for name in SAMPLING_FIELDS - {"logit_bias", "seed", *WINDOW_FIELDS}
        if body.get(name) is not None
    }
    windows: dict[str, Any] = {
        name: _window(body, name) for name in WINDOW_FIELDS if body.get(name) is not None
    }
    seed = body.get("seed")
    return Sampling(
        **{name: type(getattr(neutral, name))(value) for name, value in values.items()},
        **windows,
        logit_bias=_logit_bias(body.get("logit_bias") or {}),
        seed=None if seed is None else int(seed) % 2**63,  # range of the random generator
        logprobs=logprobs,
    )


def _window(body: JsonMapping, name: str) -> int | None:
    """Returns the number of latest tokens that a penalty counts; None for -1, which means all."""
    number = _integer(body, name)
    return None if number == -1 else number


def _logit_bias(entries: Mapping[str, float]) -> dict[int, float]:
    bias = {}
    for token, value in entries.items():
        if not token.isascii() or not token.isdigit() or len(token) > 9:
            raise InvalidRequest(f"`{token[:40]}` is not a token id.", param="logit_bias")
        if not -100 <= value <= 100:
            raise InvalidRequest(
                f"The bias of token {token} is {value}; it must lie between -100 and 100.",
                param=f"logit_bias.{token}",
            )
        bias[int(token)] = float(value)
    return bias


def _choices(body: JsonMapping, limit: int) -> int:
    choices = _integer(body, "n")
    if choices is None:
        return 1
    if choices > limit:
        raise InvalidRequest(
            f"`n` is {choices}; this server gives {limit} choices at most.",
            param="n",
            code="integer_above_max_value",
        )
    return choices


def _best_of(body: JsonMapping, choices: int, limit: int) -> int | None:
    best_of = _integer(body, "best_of")
    if best_of is None or best_of == choices:
        return None
    if not choices <= best_of <= limit:
        raise InvalidRequest(
            f"`best_of` is {best_of}; it must lie between `n` ({choices}) and {limit}.",
            param="best_of",
        )
    if body.get("stream"):
        raise InvalidRequest("`best_of` cannot be streamed.", param="best_of")
    return best_of


def _stop(body: JsonMapping) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if "" in stops:
        raise InvalidRequest("A stop string must not be empty.", param="stop")
    return stops


def _stop_tokens(body: JsonMapping) -> tuple[int, ...]:
    return tuple(tokens_from(body.get("stop_token_ids") or (), "stop_token_ids"))


def tokens_from(numbers: Sequence[float], where: str) -> list[int]:
    """Returns token ids; the engine checks that its model has them."""
    for index, number in enumerate(numbers):
        if not 0 <= number < TOKENS_END:
            raise InvalidRequest(f"{number} is not a token id.", param=f"{where}[{index}]")
    return [int(number) for number in numbers]


def _integer(body: JsonMapping, name: str) -> int | None:
    """Returns an integer field. JSON may write an integer as 5.0, and one out of range as 1e300."""
    number = body.get(name)
    if number is None:
        return None
    if abs(number) > MAX_INTEGER:
        raise InvalidRequest(f"`{name}` is {number}, which is out of range.", param=name)
    return int(number)


def _integer_or_unlimited(body: JsonMapping, name: str) -> int | None:
    """Returns a limit of tokens; None for -1, which means no limit."""
    number = _integer(body, name)
    return None if number == UNLIMITED else number


def _positive(name: str, value: int | None) -> int | None:
    if value is not None and value < 1:
        raise InvalidRequest(
            f"`{name}` is {value}; it must be at least 1.",
            param=name,
            code="integer_below_min_value",
        )
    return value


def _template_kwargs(body: JsonMapping) -> Mapping[str, Any]:
    variables = body.get("chat_template_kwargs") or {}
    for name in variables:
        if name in RESERVED_VARIABLES:
            raise InvalidRequest(
                f"`{name}` is set by the server; it cannot be given.",
                param=f"chat_template_kwargs.{name}",
            )
    return variables


def _prompts(prompt: Any) -> list[str | list[int]]:
    """Returns the prompts of the document's forms: a text, texts, tokens, or lists of tokens."""
    if prompt is None:
        return [""]
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequest("`prompt` must not be an empty list.", param="prompt")
    if isinstance(prompt[0], int | float):
        return [tokens_from(prompt, "prompt")]
    return [
        one if isinstance(one, str) else tokens_from(one, f"prompt[{index}]")
        for index, one in enumerate(prompt)
    ]
