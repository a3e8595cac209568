"""Configuration of a realtime session: defaults, changes, refused fields. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.controllers.generation.tool_choice import check_functions
from llm_backend.controllers.realtime.audio_formats import PCM, AudioFormat, audio_format
from llm_backend.controllers.realtime.conversation import check_part
from llm_backend.errors import InvalidRequest, Unsupported, UnsupportedField
from llm_backend.extras import install_command, is_installed
from llm_backend.json_types import JsonMapping, JsonObject, without_nulls

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

_PCM = {"type": "audio/pcm", "rate": PCM.rate_hz}
_VOICE = "alloy"
_TRANSCRIPTION = "transcription"
_VAD: JsonMapping = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": True,
}
_MILLISECONDS = ("prefix_padding_ms", "silence_duration_ms")
_PAUSE_LIMIT_MS = 10_000
_MINIMUM_TOKENS = 16  # smallest limit that `/responses` accepts
_TRANSLATED = (
    "instructions", "tool_choice", "parallel_tool_calls", "prompt", "reasoning", "temperature",
    "metadata",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Capabilities of this server's sessions. `speech_model` reads answers aloud;
    `voiceless_reason`, a sentence, says why it cannot. `transcription_model` is the default of
    sessions."""

    speech_model: str = "builtin-voice"
    voiceless_reason: str | None = None
    transcription_model: str | None = None
    detects_turns: bool = False


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Configuration of a session, in the document's form; all defaults are filled in."""

    fields: JsonMapping
    capabilities: Capabilities

    @classmethod
    def default(cls, model: str, capabilities: Capabilities) -> "SessionConfig":
        """Returns the configuration of a new session. The session speaks if this server can."""
        fields = {
            "type": "realtime",
            "model": model,
            "output_modalities": ["audio" if capabilities.voiceless_reason is None else "text"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "truncation": "auto",
            "tracing": None,
            "prompt": None,
            "audio": {
                "input": _default_input(capabilities),
                "output": {"format": _PCM, "voice": _VOICE, "speed": 1},
            },
        }
        return cls(fields=fields, capabilities=capabilities)

    @classmethod
    def default_transcription(
        cls, model: str | None, capabilities: Capabilities
    ) -> "SessionConfig":
        """Returns the configuration of a new session that only transcribes."""
        audio_input = _default_input(capabilities)
        if model is not None:
            audio_input["transcription"] = {"model": model}
        fields = {"type": _TRANSCRIPTION, "audio": {"input": audio_input}}
        return cls(fields=fields, capabilities=capabilities)

    def apply(self, changes: JsonMapping) -> "SessionConfig":
        """Returns the configuration with changes that follow the document's schema; null removes a
        field of audio. Raises `ApiError`, naming the field."""
        if self.is_transcription:
            _check_transcription(changes, self.capabilities)
        else:
            _check_session(changes, self.fields["model"], self.capabilities)
        audio = _merge_audio(self.fields["audio"], changes.get("audio", {}))
        return replace(self, fields={**self.fields, **changes, "audio": audio})

    def for_response(self, changes: JsonMapping) -> "SessionConfig":
        """Returns the configuration of one response. Raises as `apply` does."""
        _check_response(changes, self.capabilities)
        audio = _merge_audio(self.fields["audio"], changes.get("audio", {}))
        fields = {**self.fields, **without_nulls(changes), "audio": audio}
        if changes.get("tools") == [] and "tool_choice" not in changes:
            fields["tool_choice"] = "auto"  # that of the session would need the tools
        return replace(self, fields=fields)

    @property
    def is_transcription(self) -> bool:
        """True if the session only transcribes."""
        return bool(self.fields["type"] == _TRANSCRIPTION)

    @property
    def public_fields(self) -> JsonObject:
        """The fields as clients see them, without the session's id."""
        if self.is_transcription:
            return {**self.fields, "object": "realtime.transcription_session"}
        output = {**self.output, "voice": self.voice_id}
        audio = {**self.fields["audio"], "output": output}
        return {**self.fields, "audio": audio, "object": "realtime.session"}

    @property
    def input_format(self) -> AudioFormat:
        """The format of the client's audio."""
        return audio_format(self.fields["audio"]["input"]["format"])

    @property
    def turns(self) -> JsonMapping | None:
        """The fields of `server_vad`; None if the client commits its turns."""
        found: JsonMapping | None = self.fields["audio"]["input"]["turn_detection"]
        return found

    @property
    def transcription(self) -> JsonObject:
        """Fields of a request to `/audio/transcriptions`. Raises `InvalidRequest` without a
        model."""
        named: JsonMapping = self.fields["audio"]["input"].get("transcription", {})
        model = named.get("model") or self.capabilities.transcription_model
        if model is None:
            raise InvalidRequest(
                "`transcription` needs a `model` that transcribes.",
                param="session.audio.input.transcription.model",
                code="missing_required_parameter",
            )
        fields = {name: named[name] for name in ("language", "prompt") if named.get(name)}
        logprobs = {"include[]": "logprobs"} if self.fields.get("include") else {}
        return {"model": model, **fields, **logprobs}

    @property
    def speaks(self) -> bool:
        """True if messages are read aloud."""
        return bool(self.fields["output_modalities"] == ["audio"])

    @property
    def output(self) -> JsonMapping:
        """Format, voice and speed of speech."""
        found: JsonMapping = self.fields["audio"]["output"]
        return found

    @property
    def voice_id(self) -> str:
        """The id of the voice, as answers have it; requests have an object for a cloned voice."""
        voice: str | JsonMapping = self.output["voice"]
        return voice if isinstance(voice, str) else str(voice["id"])

    @property
    def output_format(self) -> AudioFormat:
        """The format of speech."""
        return audio_format(self.output["format"])

    @property
    def speech(self) -> JsonObject:
        """Fields of a request to `/audio/speech`."""
        model = self.capabilities.speech_model
        return {"model": model, "voice": self.output["voice"], "speed": self.output["speed"]}

    def request_body(self, items: list[JsonObject]) -> JsonObject:
        """Returns the body of a request to `/responses` with these items."""
        fields = self.fields
        body: JsonObject = {
            "model": fields["model"],
            "input": items,
            "store": False,
            "stream": True,
            "truncation": fields["truncation"],
        }
        body |= {name: fields[name] for name in _TRANSLATED if fields.get(name) not in (None, "")}
        if fields["tools"]:
            body["tools"] = [
                {"strict": False, "parameters": None, **one} for one in fields["tools"]
            ]
        if fields["max_output_tokens"] != "inf":
            body["max_output_tokens"] = fields["max_output_tokens"]
        return body


def _check_session(changes: JsonMapping, model: str, capabilities: Capabilities) -> None:
    _refuse_unsupported(changes, FIELDS, "session")
    if changes["type"] != "realtime":
        raise InvalidRequest("The session must be of the type `realtime`.", param="session.type")
    if changes.get("model") not in (None, model):
        raise InvalidRequest(
            f"The model of a session cannot be changed: it is `{model}`. Open another session.",
            param="session.model",
        )
    if changes.get("tracing") not in (None, "auto"):
        raise UnsupportedField(
            "Tracing follows the settings of this server: `tracing` must be `auto`.",
            param="session.tracing",
        )
    if not isinstance(changes.get("truncation", "auto"), str):
        raise UnsupportedField(
            "`truncation` must be `auto` or `disabled`; a retention ratio is not supported.",
            param="session.truncation",
        )
    _check_common(changes, "session", capabilities)


def _check_transcription(changes: JsonMapping, capabilities: Capabilities) -> None:
    _refuse_unsupported(changes, {"type", "audio", "include"}, "session")
    if changes["type"] != _TRANSCRIPTION:
        raise InvalidRequest(
            f"The session must be of the type `{_TRANSCRIPTION}`.", param="session.type"
        )
    audio = changes.get("audio", {})
    _refuse_unsupported(audio, {"input"}, "session.audio")
    _check_input(audio.get("input", {}), "session.audio.input", capabilities)


def _check_response(changes: JsonMapping, capabilities: Capabilities) -> None:
    _refuse_unsupported(changes, RESPONSE_FIELDS, "response")
    if changes.get("conversation") not in (None, "auto", "none"):
        raise UnsupportedField(
            "`conversation` must be `auto` or `none`.", param="response.conversation"
        )
    _check_common(changes, "response", capabilities)


def _check_common(changes: JsonMapping, where: str, capabilities: Capabilities) -> None:
    """Checks the fields that sessions and responses have in common."""
    modalities = changes.get("output_modalities")
    if modalities is not None and modalities not in (["text"], ["audio"]):
        raise InvalidRequest(
            '`output_modalities` must be `["text"]`, or `["audio"]` with a transcript.',
            param=f"{where}.output_modalities",
        )
    if modalities == ["audio"] and capabilities.voiceless_reason is not None:
        raise Unsupported(capabilities.voiceless_reason, param=f"{where}.output_modalities")
    _check_audio(changes.get("audio", {}), f"{where}.audio", capabilities)
    limit = changes.get("max_output_tokens", "inf")
    if limit != "inf" and limit < _MINIMUM_TOKENS:
        raise InvalidRequest(
            f"`max_output_tokens` must be at least {_MINIMUM_TOKENS}.",
            param=f"{where}.max_output_tokens",
            code="integer_below_min_value",
        )
    _check_tools(changes.get("tools", ()), where)
    for name, value in ((changes.get("prompt") or {}).get("variables") or {}).items():
        if not isinstance(value, str):
            check_part(value, "user", f"{where}.prompt.variables.{name}")


def _check_audio(audio: JsonMapping, where: str, capabilities: Capabilities) -> None:
    _refuse_unsupported(
        audio, {"output"} if where.startswith("response") else {"input", "output"}, where
    )
    _check_input(audio.get("input", {}), f"{where}.input", capabilities)
    output = audio.get("output", {})
    _refuse_unsupported(output, {"format", "voice", "speed"}, f"{where}.output")
    _check_format(output.get("format"), f"{where}.output.format")


def _check_input(fields: JsonMapping, where: str, capabilities: Capabilities) -> None:
    _refuse_unsupported(fields, {"format", "transcription", "turn_detection"}, where)
    _check_format(fields.get("format"), f"{where}.format")
    _refuse_unsupported(
        fields.get("transcription") or {}, {"model", "language", "prompt"}, f"{where}.transcription"
    )
    turns = fields.get("turn_detection")
    if turns is not None:
        _check_turns(turns, f"{where}.turn_detection", capabilities)


def _check_turns(turns: JsonMapping, where: str, capabilities: Capabilities) -> None:
    if turns["type"] != _VAD["type"]:
        raise UnsupportedField(
            "Turns are detected by `server_vad`, or committed by the client (null).",
            param=f"{where}.type",
        )
    if not capabilities.detects_turns:
        raise Unsupported(
            f"`server_vad` needs an extra, which is not installed: {install_command('realtime')}.",
            param=f"{where}.type",
        )
    _refuse_unsupported(turns, _VAD, where)
    if not 0 <= turns.get("threshold", 0) <= 1:
        raise InvalidRequest("`threshold` must be from 0 to 1.", param=f"{where}.threshold")
    for name in _MILLISECONDS:
        if not 0 <= turns.get(name, 0) <= _PAUSE_LIMIT_MS:
            raise InvalidRequest(
                f"`{name}` must be from 0 to {_PAUSE_LIMIT_MS}.", param=f"{where}.{name}"
            )


def _default_input(capabilities: Capabilities) -> JsonObject:
    return {"format": _PCM, "turn_detection": dict(_VAD) if capabilities.detects_turns else None}


def _check_format(described: JsonMapping | None, where: str) -> None:
    if described is None:
        return
    if "type" not in described:
        raise InvalidRequest(
            "A format needs a `type`.", param=f"{where}.type", code="missing_required_parameter"
        )
    if audio_format(described) != PCM and not is_installed("audio"):
        raise Unsupported(
            f"`{described['type']}` needs FFmpeg's libraries: {install_command('audio')}.",
            param=f"{where}.type",
        )


def _merge_audio(audio: JsonMapping, changes: JsonMapping) -> JsonObject:
    """Returns the fields `input` and `output`, each with its changes; null removes a field."""
    merged = {side: {**fields, **changes.get(side, {})} for side, fields in audio.items()}
    turn_detection = merged["input"]["turn_detection"]
    if turn_detection is not None:
        turn_detection = {**_VAD, **without_nulls(turn_detection)}
        for name in _MILLISECONDS:
            turn_detection[name] = int(turn_detection[name])  # JSON Schema accepts 300.0
    merged["input"] = without_nulls(merged["input"]) | {"turn_detection": turn_detection}
    return merged


def _check_tools(tools: Sequence[JsonMapping], where: str) -> None:
    """Checks tools as chats do, so that a session takes none for which each response would fail."""
    for index, tool in enumerate(tools):
        _check_tool(tool, f"{where}.tools[{index}]")
    functions = [{"type": "function", "function": tool} for tool in tools]
    try:
        check_functions(functions)
    except InvalidRequest as error:
        error.param = f"{where}.{error.param}".replace(".function.", ".", 1)
        raise


def _check_tool(tool: Mapping[str, Any], where: str) -> None:
    if tool.get("type") != "function":
        raise UnsupportedField(
            "A session's tools are functions that the client runs.", param=f"{where}.type"
        )
    if not tool.get("name"):
        raise InvalidRequest(
            "A function needs a `name`.", param=f"{where}.name", code="missing_required_parameter"
        )


def _refuse_unsupported(fields: JsonMapping, supported: Collection[str], where: str) -> None:
    refuse_unsupported_fields(
        fields,
        supported,
        by="realtime sessions",
        path=where,
    )
