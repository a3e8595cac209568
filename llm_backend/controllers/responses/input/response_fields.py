"""Fields of a response's body that local models do not support, refused by name. Pure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_backend.controllers.generation.request_translation import NEUTRAL_VALUES
from llm_backend.controllers.generation.supported_fields import (
    describe_model,
    refuse_unsupported_fields,
)
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

SUPPORTED = {
    "model", "input", "instructions", "prompt", "previous_response_id", "conversation", "tools",
    "tool_choice", "max_tool_calls", "parallel_tool_calls", "text", "reasoning", "temperature",
    "top_p", "presence_penalty", "frequency_penalty", "max_output_tokens", "top_logprobs",
    "include", "store", "metadata", "background", "stream", "stream_options", "truncation",
    "service_tier", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "context_management", "moderation", "client_metadata",
}  # fmt: skip
# `client_metadata` describes the client, as Codex does, and has no effect.
# Every value of `include` is accepted: one that selects nothing of a local response has no effect.

# Nested fields: the supported values, and the reason in the error message.
SUPPORTED_VALUES: Mapping[tuple[str, str], tuple[tuple[Any, ...], str]] = {
    ("reasoning", "mode"): (("standard",), "Local models reason in one way"),
    ("reasoning", "context"): (
        ("auto",), "The model's chat template decides which earlier reasoning it reads"
    ),
    ("prompt_cache_options", "mode"): (
        ("implicit",), "A prefix that a prompt shares with an earlier one is always cached"
    ),
    ("prompt_cache_options", "comparison_response_id"): (
        (), "Prompts are not compared, so there are no `prompt_cache_diagnostics`"
    ),
}  # fmt: skip

_EFFECTIVE = frozenset({"cache_prompt", "id_slot", "seed"})  # also with the value false or 0


def _is_empty(name: str, value: Any) -> bool:  # Any: a JSON value
    return name not in _EFFECTIVE and value in (False, [], {})


def check_response_fields(body: "api.CreateResponse") -> None:
    """Raises `UnsupportedField`, with the field's name, for the first unsupported field."""
    fields: JsonMapping = body
    refuse_unsupported_fields(
        fields,
        SUPPORTED,
        neutral=NEUTRAL_VALUES,
        is_neutral=_is_empty,
        by=describe_model(fields),
    )
    for (name, part), (accepted, why) in SUPPORTED_VALUES.items():
        value = (fields.get(name) or {}).get(part)
        if value is not None and value not in accepted:
            alternatives = " or ".join([*(f"`{one}`" for one in accepted if one), "absent"])
            raise UnsupportedField(
                f"{why}; `{part}` must be {alternatives}.", param=f"{name}.{part}"
            )
    for index, entry in enumerate(body.get("context_management") or ()):
        if entry["type"] != "compaction":
            raise UnsupportedField(
                f"Contexts are managed by `compaction`; `{entry['type']}` is not known here.",
                param=f"context_management[{index}].type",
            )
    if body.get("stream_options") and not body.get("stream"):
        raise InvalidRequest("`stream_options` needs `stream: true`.", param="stream_options")
    if (body.get("max_tool_calls") or 0) < 0:
        raise InvalidRequest("`max_tool_calls` must be at least 0.", param="max_tool_calls")
