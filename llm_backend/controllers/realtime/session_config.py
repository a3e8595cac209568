"""Configuration of a realtime session: defaults, changes, refused fields. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from llm_backend.controllers.generation.supported_fields import refuse_others
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject

FIELDS = {
    "type", "model", "output_modalities", "instructions", "tools", "tool_choice",
    "max_output_tokens", "parallel_tool_calls", "prompt", "reasoning", "temperature", "truncation",
    "tracing", "include", "audio",
}  # fmt: skip
RESPONSE_FIELDS = {
    "output_modalities", "instructions", "tools", "tool_choice", "max_output_tokens",
    "parallel_tool_calls", "prompt", "reasoning", "temperature", "metadata", "conversation",
    "input", "audio",
}  # fmt: skip

_LEAST_TOKENS = 16  # of an answer of `/responses`
_TRANSLATED = (
    "instructions", "tool_choice", "parallel_tool_calls", "prompt", "reasoning", "temperature",
    "metadata",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Configuration of a session, in the document's form; all defaults are filled in."""

    fields: JsonMapping

    @classmethod
    def default(cls, model: str) -> "SessionConfig":
        """Returns the configuration of a new session."""
        fields = {
            "type": "realtime",
            "model": model,
            "output_modalities": ["text"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "tracing": None,
            "prompt": None,
        }
        return cls(fields=fields)

    def apply(self, changes: JsonMapping) -> "SessionConfig":
        """Returns the configuration with changes; a null resets a field. Raises `InvalidRequest`
        or `UnsupportedField`, naming the field."""
        _check_session(changes, self.fields["model"])
        known = SessionConfig.default(self.fields["model"]).fields
        fields = {**self.fields, **changes}
        for name, value in changes.items():
            if value is None:
                fields.pop(name)
                if name in known:
                    fields[name] = known[name]
        return SessionConfig(fields=fields)

    def for_response(self, changes: JsonMapping) -> "SessionConfig":
        """Returns the configuration of one response. Raises as `apply` does."""
        _check_response(changes)
        given = {name: value for name, value in changes.items() if value is not None}
        return SessionConfig(fields={**self.fields, **given})

    @property
    def metadata(self) -> JsonMapping | None:
        """The metadata of a response."""
        found: JsonMapping | None = self.fields.get("metadata")
        return found

    def request(self, items: list[JsonObject]) -> JsonObject:
        """Returns the body of a request to `/responses` with these items."""
        fields = self.fields
        body: JsonObject = {
            "model": fields["model"],
            "input": items,
            "store": False,
            "stream": True,
            "truncation": fields["truncation"],
        }
        body |= {name: fields[name] for name in _TRANSLATED if fields.get(name)}
        if fields["tools"]:
            body["tools"] = [
                {"strict": False, "parameters": None, **one} for one in fields["tools"]
            ]
        if fields["max_output_tokens"] != "inf":
            body["max_output_tokens"] = fields["max_output_tokens"]
        return body


def _check_session(changes: JsonMapping, model: str) -> None:
    _refuse_others(changes, FIELDS, "session")
    if changes["type"] != "realtime":
        raise InvalidRequest("The session is of the type `realtime`.", param="session.type")
    if changes.get("model") not in (None, model):
        raise InvalidRequest(
            f"The model of the session stays `{model}`: open another one.", param="session.model"
        )
    if changes.get("tracing") not in (None, "auto"):
        raise UnsupportedField(
            "Traces are those of this server's settings: `tracing` is `auto`.",
            param="session.tracing",
        )
    if not isinstance(changes.get("truncation", "auto"), str | None):
        raise UnsupportedField(
            "`truncation` is `auto` or `disabled`: no ratio is kept.", param="session.truncation"
        )
    if changes.get("include"):
        raise UnsupportedField("There is no transcript of input here.", param="session.include")
    _check_common(changes, "session")


def _check_response(changes: JsonMapping) -> None:
    _refuse_others(changes, RESPONSE_FIELDS, "response")
    if changes.get("conversation") not in (None, "auto", "none"):
        raise UnsupportedField("`conversation` is `auto` or `none`.", param="response.conversation")
    _check_common(changes, "response")


def _check_common(changes: JsonMapping, where: str) -> None:
    """Checks the fields that sessions and responses have in common."""
    if "audio" in (changes.get("output_modalities") or ()):
        raise UnsupportedField(
            'Answers are text: `output_modalities` is `["text"]`.',
            param=f"{where}.output_modalities",
        )
    if changes.get("audio"):
        raise UnsupportedField("Sessions are of text.", param=f"{where}.audio")
    limit = changes.get("max_output_tokens")
    if isinstance(limit, int) and limit < _LEAST_TOKENS:
        raise InvalidRequest(
            f"`max_output_tokens` is at least {_LEAST_TOKENS}.",
            param=f"{where}.max_output_tokens",
            code="integer_below_min_value",
        )
    for index, tool in enumerate(changes.get("tools") or ()):
        _check_tool(tool, f"{where}.tools[{index}]")


def _check_tool(tool: Mapping[str, Any], where: str) -> None:
    if tool.get("type") != "function":
        raise UnsupportedField(
            "A session's tools are functions that the client runs.", param=f"{where}.type"
        )
    if not tool.get("name"):
        raise InvalidRequest(
            "A function needs a `name`.", param=f"{where}.name", code="missing_required_parameter"
        )


def _refuse_others(fields: JsonMapping, supported: Collection[str], where: str) -> None:
    named = {f"{where}.{name}": value for name, value in fields.items()}
    refuse_others(
        named,
        {f"{where}.{name}" for name in supported},
        is_neutral=lambda _, value: value is None,
        by="realtime sessions",
    )
