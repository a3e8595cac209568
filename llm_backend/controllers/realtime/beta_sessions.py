"""Sessions in the form of the beta API, for `POST /realtime/sessions` and
`/realtime/transcription_sessions`. Pure."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.errors import ApiError, InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject, without_nulls

_SESSION_PATHS: Mapping[str, str] = {
    "modalities": "output_modalities",
    "max_response_output_tokens": "max_output_tokens",
    "input_audio_format": "audio.input.format",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "input_audio_transcription": "audio.input.transcription",
    "turn_detection": "audio.input.turn_detection",
    "output_audio_format": "audio.output.format",
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
}
"""Paths in a session of the beta's fields. Fields that are missing here have the same name in both
forms."""

_FORMATS: Mapping[str, JsonMapping] = {
    "pcm16": {"type": "audio/pcm", "rate": 24_000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_FORMAT_NAMES = {described["type"]: name for name, described in _FORMATS.items()}
# Fields without parts in the beta: errors in parts of the session's field name the whole field.
_SCALARS = {"modalities", "input_audio_format", "output_audio_format", "voice"}
_SESSION_FIELDS = (
    "audio", "instructions", "max_output_tokens", "model", "output_modalities", "prompt",
    "temperature", "tool_choice", "tools", "tracing", "truncation",
)  # fmt: skip
_TURN_FIELDS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
_TRANSCRIPTION = ("input_audio_format", "input_audio_transcription", "turn_detection")
_SUPPORTED = {
    "realtime": {
        *_SESSION_PATHS, "client_secret", "instructions", "model", "prompt", "temperature",
        "tool_choice", "tools", "tracing", "truncation",
    },
    "transcription": {
        *_TRANSCRIPTION, "client_secret", "include", "input_audio_noise_reduction", "modalities",
    },
}  # fmt: skip


def session_from(body: JsonMapping, type: str) -> JsonObject:
    """Returns the fields of a session of this type. A null has no effect, but in `turn_detection`
    it turns the detection off. Raises `InvalidRequest` with the name of the body's field, and
    `UnsupportedField` for a field that the beta lacks."""
    refuse_unsupported_fields(body, _SUPPORTED[type], by="realtime sessions")
    session: JsonObject = {"type": type}
    for name, value in body.items():
        if name == "client_secret" or (value is None and name != "turn_detection"):
            continue
        if name == "modalities" and type == "transcription":
            _check_transcribes(value)
            continue
        *path, last = _SESSION_PATHS.get(name, name).split(".")
        fields = session
        for step in path:
            fields = fields.setdefault(step, {})
        fields[last] = _session_value(name, value)
    return session


@contextmanager
def translate_error_names() -> Iterator[None]:
    """Rewrites paths of session fields to the beta's names, in `param` and messages of errors."""
    try:
        yield
    except ApiError as error:
        if error.param:
            path = error.param.removeprefix("session.")
            name = error.param = _beta_name(path)
            whole = rf"(?<![\w.])(?:session\.)?{re.escape(path)}(?!\w)"
            error.message = re.sub(whole, lambda _: name, error.message)
            error.args = (error.message,)
        raise


def realtime_answer(config: SessionConfig) -> JsonObject:
    """Returns a session that answers, with both the document's names of fields and the beta's."""
    fields = {name: config.fields.get(name) for name in _SESSION_FIELDS}
    audio = {side: without_nulls(one) for side, one in config.fields["audio"].items()}
    beta = {name: _beta_value(name, config.fields) for name in _SESSION_PATHS}
    answer = {**fields, **beta, "audio": audio, "include": config.fields.get("include", [])}
    return {"object": "realtime.session", **without_nulls(answer)}


def transcription_answer(config: SessionConfig) -> JsonObject:
    """Returns a session that only transcribes, with the beta's names of fields."""
    beta = {name: _beta_value(name, config.fields) for name in _TRANSCRIPTION}
    return {"modalities": ["text"], **without_nulls(beta)}


def _session_value(name: str, value: Any) -> Any:
    """Translates the value of a beta's field to its value in a session."""
    match name:
        case "modalities":
            return _modalities(value)
        case "input_audio_format" | "output_audio_format":
            if value not in _FORMATS:
                raise InvalidRequest(f"`{name}` must be one of {', '.join(_FORMATS)}.", param=name)
            return _FORMATS[value]
        case "turn_detection" if value is not None:
            return {"type": "server_vad", **value}
        case "voice" if isinstance(value, Mapping):
            return value["id"]
    return value


def _modalities(names: list[str]) -> list[str]:
    """Returns the one modality of a session; `audio` always includes the transcript."""
    if not names:
        raise InvalidRequest("`modalities` must have at least one item.", param="modalities")
    return ["audio"] if "audio" in names else ["text"]


def _check_transcribes(modalities: list[str]) -> None:
    if modalities != ["text"]:
        raise UnsupportedField(
            'A session that only transcribes must have the `modalities` `["text"]`.',
            param="modalities",
        )


def _beta_value(name: str, session: JsonMapping) -> Any:
    """Returns a beta field's value from the session; None if the session has none."""
    value: Any = session
    for step in _SESSION_PATHS[name].split("."):
        value = (value or {}).get(step)
    if value is not None and name in ("input_audio_format", "output_audio_format"):
        return _FORMAT_NAMES[value["type"]]
    if value is not None and name == "turn_detection":
        return {field: value[field] for field in _TURN_FIELDS}
    return ["audio", "text"] if name == "modalities" and value == ["audio"] else value


def _beta_name(param: str) -> str:
    for name, path in _SESSION_PATHS.items():
        found = re.match(rf"{re.escape(path)}(?=[.\[]|$)", param)
        if found is not None:
            return name if name in _SCALARS else f"{name}{param[found.end() :]}"
    return param
