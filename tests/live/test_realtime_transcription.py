"""Realtime sessions that hear: a Whisper model that hears the same in every turn, real speech."""

import base64
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import httpx
import pytest

from tests.missing import missing
from tests.realtime_client import RealtimeClient, message, opened, parts
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.voice import PROGRAM, require_voice
from tests.whisper_models import require_transcription, write_whisper

TEXT = "Hello world. Grüße an alle!"
COMMIT = {"type": "input_audio_buffer.commit"}
HEARS = {"transcription": {"model": "hello"}}
TRANSCRIPT = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Iterator[Served]:
    require_transcription()
    require_voice()
    if find_spec("webrtcvad") is None:
        missing("the extra is not installed: pip install 'llm-backend[realtime]'")
    folder = tmp_path_factory.mktemp("hearing")
    model = write_whisper(folder / "hello.bin")
    environment = {
        "LLM_BACKEND_VOICE_PROGRAM": PROGRAM,
        "LLM_BACKEND_REALTIME_TRANSCRIPTION_MODEL": "hello",
        "LLM_BACKEND_REALTIME_INPUT_LIMIT_S": "20",
    }
    with serve(folder, "--model", "builtin", "--model", str(model), environment=environment) as one:
        yield one


@pytest.fixture(scope="module")
def speech(hearing) -> bytes:
    """A sentence, as 16-bit samples of 24 kHz."""
    body = {"model": "builtin-voice", "voice": "alloy", "response_format": "pcm",
            "input": "Good morning, how are you doing today?"}  # fmt: skip
    return httpx.post(f"{hearing.base_url}/audio/speech", json=body, timeout=60).content


def update(session: RealtimeClient, type: str = "realtime", **audio: Any) -> dict[str, Any]:
    fields = {"type": type, "audio": {"input": audio}}
    session.send({"type": "session.update", "session": fields})
    return session.receive()


def append(session: RealtimeClient, audio: bytes, piece_bytes: int = 9600) -> None:
    for start in range(0, len(audio), piece_bytes):
        piece = base64.b64encode(audio[start : start + piece_bytes]).decode()
        session.send({"type": "input_audio_buffer.append", "audio": piece})


def test_a_turn_that_the_client_commits_is_heard_and_answered(hearing, speech):
    with opened(hearing) as session:
        update(session, turn_detection=None, **HEARS)
        append(session, speech)
        session.send(COMMIT)
        events = session.answer(output_modalities=["text"])
        item_id = events[0]["item_id"]
        session.send({"type": "conversation.item.retrieve", "item_id": item_id})
        item = session.receive()["item"]

    kinds = [one["type"] for one in events]
    assert kinds[:3] == [
        "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done",
    ]  # fmt: skip
    assert parts(events, f"{TRANSCRIPT}.delta") == TEXT
    (heard,) = [one for one in events if one["type"] == f"{TRANSCRIPT}.completed"]
    assert heard["transcript"] == TEXT
    assert heard["usage"]["seconds"] == pytest.approx(len(speech) / 48_000, abs=0.01)
    assert kinds.index(f"{TRANSCRIPT}.completed") < kinds.index("response.output_item.added")
    assert item["content"] == [{"type": "input_audio", "transcript": TEXT}]
    assert events[-1]["response"]["status"] == "completed"


def test_a_turn_is_detected_answered_and_interrupted(hearing, speech):
    silence = bytes(48_000)
    with opened(hearing) as session:
        turns = update(session)["session"]["audio"]["input"]["turn_detection"]
        append(session, silence + speech + silence)
        first = session.until("response.output_audio.delta")
        append(session, speech + silence)
        second = session.until("response.done")
        if second[-1]["response"]["status"] == "completed":  # before the second turn was heard
            second += session.until("input_audio_buffer.speech_started")
        third = session.until("response.done")

    assert turns["type"] == "server_vad"
    kinds = [one["type"] for one in first]
    began, ended = (
        kinds.index("input_audio_buffer.speech_started"),
        kinds.index("input_audio_buffer.speech_stopped"),
    )
    assert began < ended < kinds.index("input_audio_buffer.committed")
    assert first[began]["item_id"] == first[ended]["item_id"]
    assert 400 <= first[began]["audio_start_ms"] <= 1200  # a second of silence, less the padding
    duration_ms = first[ended]["audio_end_ms"] - first[began]["audio_start_ms"]
    assert duration_ms == pytest.approx(len(speech) / 48 + 500, abs=500)
    assert "input_audio_buffer.speech_started" in [one["type"] for one in second]
    assert third[-1]["response"]["status"] == "completed"


def test_audio_in_an_item_is_heard(hearing, speech):
    content = [{"type": "input_audio", "audio": base64.b64encode(speech).decode()}]
    with opened(hearing) as session:
        events = session.answer(message("", content=content), output_modalities=["text"])

    assert events[0]["item"]["content"] == [{"type": "input_audio"}]
    assert parts(events, f"{TRANSCRIPT}.completed", "transcript") == TEXT


def test_a_session_in_the_form_of_the_beta_only_transcribes(hearing, speech):
    with StrictOpenAI(base_url=hearing.base_url, api_key="none", max_retries=0) as client:
        made = client.beta.realtime.transcription_sessions.create(
            input_audio_transcription={"model": "hello", "language": "en"}, turn_detection=None,
            modalities=["text"],
            client_secret={"expires_at": {"anchor": "created_at", "seconds": 60}},
        )  # fmt: skip
        unnamed = client.beta.realtime.transcription_sessions.create()
    headers = {"authorization": f"Bearer {made.client_secret.value}"}
    with opened(hearing, "model=hello", additional_headers=headers) as session:
        append(session, speech)
        session.send(COMMIT)
        events = session.until(f"{TRANSCRIPT}.completed")

    assert 0 < made.client_secret.expires_at - time.time() <= 60
    assert (made.input_audio_format, made.modalities) == ("pcm16", ["text"])
    assert made.input_audio_transcription.model == "hello"
    assert unnamed.turn_detection.type == "server_vad"
    assert parts(events, f"{TRANSCRIPT}.delta") == TEXT


def test_a_session_that_only_transcribes_answers_nothing(hearing, speech):
    with opened(hearing, "intent=transcription") as session:
        created = update(session, "transcription", format={"type": "audio/pcmu"},
                         turn_detection=None)["session"]  # fmt: skip
        append(session, b"\x80\x00" * 16_000)  # four seconds
        session.send(COMMIT)
        events = session.until(f"{TRANSCRIPT}.completed")
        session.send({"type": "response.create"})
        refused = session.receive()

    assert created["object"] == "realtime.transcription_session"
    assert events[-1]["transcript"] == TEXT
    assert refused["error"]["message"] == "A session that transcribes has no responses."


def test_a_turn_that_cannot_be_heard_fails_and_the_session_goes_on(hearing):
    with opened(hearing) as session:
        update(session, turn_detection=None, transcription={"model": "builtin"})
        append(session, bytes(9600))
        session.send(COMMIT)
        failed = session.until(f"{TRANSCRIPT}.failed")[-1]
        after = session.answer(message("Hello!"), output_modalities=["text"])

    assert failed["error"]["param"] == "model"
    assert after[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("audio", "event", "param"),
    [
        ({}, {"type": "input_audio_buffer.append", "audio": "x"}, "audio"),
        ({}, {"type": "input_audio_buffer.append", "audio": "AAAA"}, "audio"),
        ({}, {"type": "input_audio_buffer.append",
              "audio": base64.b64encode(bytes(21 * 48_000)).decode()}, "audio"),
        ({}, COMMIT, None),
        ({"turn_detection": {"type": "semantic_vad"}}, None,
         "session.audio.input.turn_detection.type"),
        ({"turn_detection": {"type": "server_vad", "threshold": 2}}, None,
         "session.audio.input.turn_detection.threshold"),
        ({"noise_reduction": {"type": "near_field"}}, None, "session.audio.input.noise_reduction"),
        ({"transcription": {"model": "hello", "delay": "low"}}, None,
         "session.audio.input.transcription.delay"),
    ],
)  # fmt: skip
def test_audio_that_is_not_taken_is_refused_by_name(hearing, audio, event, param):
    with opened(hearing) as session:
        answer = update(session, **audio)
        if event is not None:
            session.send(event)
            answer = session.receive()

    assert answer["error"]["param"] == param


def test_audio_in_a_session_without_transcription_is_refused_with_the_missing_field(server):
    with opened(server) as session:
        append(session, bytes(960))
        error = session.receive()["error"]

    assert error["param"] == "session.audio.input.transcription.model"
