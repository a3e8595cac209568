"""Sessions in the form of the beta, as sessions and back."""

import copy

import pytest

from llm_backend.controllers.realtime.beta_sessions import (
    realtime_answer,
    session_from,
    transcription_answer,
    translate_error_names,
)
from llm_backend.controllers.realtime.session_config import Capabilities, SessionConfig
from llm_backend.errors import InvalidRequest, UnsupportedField

CAPABILITIES = Capabilities(detects_turns=True)


def test_a_session_has_the_fields_of_the_beta_and_answers_with_them():
    body = {
        "model": "builtin", "modalities": ["audio", "text"], "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "hello"}, "output_audio_format": "pcm16",
        "voice": "nova", "speed": 1.5, "instructions": "Be brief.", "temperature": 0.6,
        "max_response_output_tokens": 100, "turn_detection": {"silence_duration_ms": 700},
        "tracing": None, "client_secret": {},
    }  # fmt: skip
    default = SessionConfig.default("builtin", CAPABILITIES)
    answer = realtime_answer(default.apply(session_from(body, "realtime")))

    given = {name: body[name] for name in body if name not in ("tracing", "client_secret")}
    assert {name: answer[name] for name in given} == {
        **given,
        "turn_detection": {
            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300,
            "silence_duration_ms": 700,
        },
    }  # fmt: skip
    assert answer["output_modalities"] == ["audio"]
    assert answer["audio"]["input"]["transcription"] == {"model": "hello"}
    assert "tracing" not in answer


def test_a_session_leaves_the_body_as_it_is():
    body = {
        "turn_detection": {"threshold": 0.2}, "voice": {"id": "nova"}, "speed": 1,
        "input_audio_transcription": {"model": "hello"}, "modalities": ["text", "audio"],
    }  # fmt: skip
    before = copy.deepcopy(body)
    session_from(body, "realtime")

    assert body == before


def test_a_session_that_transcribes_has_the_fields_of_the_beta():
    body = {"modalities": ["text"], "input_audio_format": "pcm16", "turn_detection": None}
    default = SessionConfig.default_transcription("hello", CAPABILITIES)
    answer = transcription_answer(default.apply(session_from(body, "transcription")))

    assert answer == {
        "modalities": ["text"], "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "hello"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("param", "name"),
    [
        ("session.audio.input.format.type", "input_audio_format"),
        ("session.audio.input.turn_detection.threshold", "turn_detection.threshold"),
        ("audio.output.speed", "speed"),
        ("session.output_modalities", "modalities"),
        ("session.tools[0].name", "tools[0].name"),
    ],
)
def test_errors_name_the_field_of_the_beta(param, name):
    with pytest.raises(InvalidRequest) as refused, translate_error_names():
        raise InvalidRequest("Wrong.", param=param)

    assert refused.value.param == name


@pytest.mark.parametrize(
    ("message", "param", "translated"),
    [
        ("`session.audio.input.noise_reduction` is not supported.",
         "session.audio.input.noise_reduction", "`input_audio_noise_reduction` is not supported."),
        ("`max_output_tokens` must be at least 16.", "session.max_output_tokens",
         "`max_response_output_tokens` must be at least 16."),
        ("`session.tools[0].name` is wrong.", "session.tools[0].name",
         "`tools[0].name` is wrong."),
        ("The session is wrong.", None, "The session is wrong."),
    ],
)  # fmt: skip
def test_messages_of_errors_name_the_field_of_the_beta(message, param, translated):
    with pytest.raises(InvalidRequest) as refused, translate_error_names():
        raise InvalidRequest(message, param=param)

    assert (refused.value.message, str(refused.value)) == (translated, translated)


@pytest.mark.parametrize(
    ("type", "name"),
    [
        ("realtime", "audio"), ("realtime", "output_modalities"), ("realtime", "max_output_tokens"),
        ("realtime", "type"), ("realtime", "model.x"), ("realtime", "audio.output.voice"),
        ("transcription", "voice"), ("transcription", "audio"),
    ],
)  # fmt: skip
def test_fields_that_the_beta_has_not_are_refused(type, name):
    with pytest.raises(UnsupportedField) as refused:
        session_from({"voice" if type == "realtime" else "include": [], name: 3}, type)

    assert refused.value.param == name


def test_a_session_that_transcribes_does_not_speak():
    with pytest.raises(UnsupportedField) as refused:
        session_from({"modalities": ["audio", "text"]}, "transcription")

    assert refused.value.param == "modalities"
