"""Options of Ollama's requests as fields of chats and completions (pure).

Options of loading a model are accepted without effect: this server's settings decide. So are
`keep_alive` (but 0 without input unloads the model), `truncate` and `shift`: a prompt that does not
fit is refused.
"""

import re

from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.errors import UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject

HINTS = frozenset({"keep_alive", "truncate", "shift"})
GENERATION = frozenset(
    {"model", "options", "format", "stream", "think", "logprobs", "top_logprobs"} | HINTS
)
OPTIONS = (
    "temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop", "repeat_penalty",
    "repeat_last_n", "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau",
    "mirostat_eta",
)  # fmt: skip
"""Options that chats and completions have as fields, by the same names."""
_LOADING = frozenset(
    {
        "numa", "num_ctx", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all",
        "vocab_only", "use_mmap", "use_mlock", "embedding_only", "num_thread", "num_keep",
        "draft_num_predict",
    }
)  # fmt: skip
_NO_TIME = re.compile(r"[+-]?(?:0|(?:0+(?:\.0*)?(?:ns|us|µs|ms|s|m|h))+)")
_NEUTRAL = {"tfs_z": 1, "penalize_newline": False}  # values that change nothing


def check_ollama_fields(body: JsonMapping, known: frozenset[str]) -> None:
    """Raises `UnsupportedField` for a field that has an effect and is not `known`."""
    # Ollama's clients send empty values for fields that were not given.
    refuse_unsupported_fields(body, known, is_neutral=lambda _, value: not value)


def generation_fields(body: JsonMapping) -> JsonObject:
    """Returns the fields that a chat and a completion share. Raises `UnsupportedField` for an
    option that would change the answer."""
    options: JsonMapping = body.get("options") or {}
    _check_options(options)
    fields: JsonObject = {name: options[name] for name in OPTIONS if options.get(name) is not None}
    if (options.get("num_predict") or 0) > 0:  # others mean: up to the end of the context
        fields["max_tokens"] = options["num_predict"]
    return {**fields, "model": body["model"], "stream": streams(body)}


def unloads(body: JsonMapping) -> bool:
    """Returns True if the body keeps the model for no time; a text is a duration such as `0m`."""
    keep_alive = body.get("keep_alive")
    if isinstance(keep_alive, str):
        return _NO_TIME.fullmatch(keep_alive) is not None
    return keep_alive == 0


def streams(body: JsonMapping) -> bool:
    """Returns True unless the body asks for a whole answer."""
    return body.get("stream") is not False


def chat_fields(body: JsonMapping) -> JsonObject:
    """Returns the fields of a chat for `options`, `format`, `think` and log probabilities."""
    fields = {**generation_fields(body), **_format(body.get("format"))}
    if "max_tokens" in fields:
        fields["max_completion_tokens"] = fields.pop("max_tokens")
    if isinstance(body.get("think"), str):
        fields["reasoning_effort"] = body["think"]
    if body.get("logprobs"):
        fields["logprobs"] = True
        if body.get("top_logprobs") is not None:
            fields["top_logprobs"] = body["top_logprobs"]
    return fields


def _check_options(options: JsonMapping) -> None:
    for name, value in options.items():
        if value is None or name in OPTIONS or name in _LOADING or name == "num_predict":
            continue
        if name not in _NEUTRAL or value != _NEUTRAL[name]:
            raise UnsupportedField(
                f"The option `{name}` is not supported by this server; leave it out.",
                param=f"options.{name}",
            )


def _format(form: object) -> JsonObject:
    if not form:
        return {}
    if form == "json":
        return {"response_format": {"type": "json_object"}}
    schema = {"name": "answer", "schema": form, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}
