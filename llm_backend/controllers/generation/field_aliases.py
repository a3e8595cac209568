"""Names that other servers have for fields of chats and completions (pure)."""

from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMappingT

_ALIASES = {"repetition_penalty": "repeat_penalty", "n_choice": "n"}
UNLIMITED = -1  # value of `max_tokens` for as many as fit into the context


def with_common_names(body: JsonMappingT) -> JsonMappingT:
    """Returns a body with `repeat_penalty` for `repetition_penalty`, `n` for `n_choice`, and
    `enable_thinking` among the variables of the chat template. Raises `InvalidRequest` for a field
    given twice, and for two limits of tokens that differ."""
    _check_limits(body)
    thinking = body.get("enable_thinking")
    given = {alias: name for alias, name in _ALIASES.items() if body.get(alias) is not None}
    if not given and thinking is None:
        return body
    fields = {key: body[key] for key in body if key not in (*_ALIASES, "enable_thinking")}
    for alias, name in given.items():
        _check_unset(fields.get(name), alias, name)
        fields[name] = body[alias]
    if thinking is not None:
        variables = fields.get("chat_template_kwargs") or {}
        _check_unset(
            variables.get("enable_thinking"),
            "enable_thinking",
            "chat_template_kwargs.enable_thinking",
        )
        fields["chat_template_kwargs"] = {**variables, "enable_thinking": thinking}
    return fields  # type: ignore[return-value] # a body of the same kind


def _check_limits(body: JsonMappingT) -> None:
    """Raises `InvalidRequest` for two different limits. The same one twice, as clients of many
    servers send it, is harmless."""
    limits = (body.get("max_tokens"), body.get("max_completion_tokens"))
    if None not in limits and limits[0] != limits[1]:
        raise InvalidRequest(
            f"`max_tokens` is {limits[0]} and `max_completion_tokens` {limits[1]}: send one.",
            param="max_tokens",
            code="invalid_parameter_combination",
        )


def _check_unset(value: object, alias: str, name: str) -> None:
    if value is not None:
        raise InvalidRequest(f"`{alias}` is another name of `{name}`: send one.", param=alias)
