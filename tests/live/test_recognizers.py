"""Transcripts of NeMo models by a served process, with the official client."""

import base64
import json
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import httpx
import openai
import pytest

from tests.kills import transcribe_through_a_kill
from tests.missing import missing
from tests.realtime_client import opened, parts
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.tone_recognizer import write_recognizer
from tests.tone_speakers import Tone, tones_file
from tests.tone_voice import require_voices

TONES: Sequence[Tone] = ((400, 0.5), (0, 0.3), (800, 0.5), (3000, 0.3), (1600, 0.5))
TALK = tones_file(TONES)
SAID = ["one two.", "three"]
TEXT = " ".join(SAID)
TRANSCRIPT = "conversation.item.input_audio_transcription"


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Iterator[Served]:
    require_voices()
    folder = tmp_path_factory.mktemp("recognizers")
    models = [write_recognizer(folder / kind, kind=kind).parent for kind in ("tdt", "ctc")]
    flags = [word for one in models for word in ("--model", str(one))]
    with serve(folder, *flags, environment={"LLM_BACKEND_THREADS": "1"}) as served:
        yield served


@pytest.fixture
def client(hearing) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=hearing.base_url, api_key="none", max_retries=0) as one:
        yield one


def transcribe(hearing: Served, operation: str = "transcriptions", **fields: str) -> httpx.Response:
    form: Any = {"model": "tdt", **fields}
    file = {"file": ("talk.wav", TALK, "audio/wav")}
    return httpx.post(f"{hearing.base_url}/audio/{operation}", data=form, files=file, timeout=120)


def test_a_transcript_has_segments_words_and_logprobs(client):
    verbose: Any = client.audio.transcriptions.create(
        model="tdt",
        file=("talk.wav", TALK),
        response_format="verbose_json",
        timestamp_granularities=["segment", "word"],
    )
    plain: Any = client.audio.transcriptions.create(
        model="tdt", file=("talk.wav", TALK), include=["logprobs"]
    )

    assert (verbose.text, plain.text) == (TEXT, TEXT)
    assert [one.text.strip() for one in verbose.segments] == SAID
    assert [one.word for one in verbose.words] == ["one", "two.", "three"]
    assert [one.token for one in plain.logprobs] == [" one", " two", ".", " three"]
    assert all(-0.1 < one.logprob <= 0 for one in plain.logprobs)


def test_a_stream_has_a_delta_for_each_segment(client):
    stream: Any = client.audio.transcriptions.create(
        model="tdt", file=("talk.wav", TALK), stream=True
    )
    *deltas, done = list(stream)

    assert [one.delta.strip() for one in deltas] == SAID
    assert done.text == TEXT


def test_windows_of_a_long_recording_end_in_pauses(hearing):
    tones = [(hz, 0.9) for _ in range(12) for hz in (400, 0, 800, 0)]
    file = {"file": ("long.wav", tones_file(tones), "audio/wav")}
    answer = httpx.post(
        f"{hearing.base_url}/audio/transcriptions", data={"model": "ctc"}, files=file, timeout=120
    ).json()

    assert answer["text"] == " ".join(["one two"] * 12)


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("language", {"language": "en"}),
        ("prompt", {"prompt": "one"}),
        ("temperature", {"temperature": "0.5"}),
        ("include", {"model": "ctc", "include[]": "logprobs"}),
    ],
)
def test_fields_that_such_a_model_cannot_honour_are_refused(hearing, param, fields):
    answer = transcribe(hearing, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_turns_that_a_realtime_session_detects_are_transcribed(hearing):
    if find_spec("webrtcvad") is None:
        missing("the extra is not installed: pip install 'llm-backend[realtime]'")
    turn = tones_file([(0, 1), *TONES, (0, 1)], rate_hz=24_000)[44:]  # without the head of the file
    append = {"type": "input_audio_buffer.append", "audio": base64.b64encode(turn).decode()}
    with opened(hearing, "intent=transcription&model=tdt") as session:
        for _ in range(2):
            session.send(append)
            events = session.until(f"{TRANSCRIPT}.completed", f"{TRANSCRIPT}.failed", "error")
            kinds = [one["type"] for one in events]
            assert kinds[:2] == [
                "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
            ]  # fmt: skip
            assert parts(events, f"{TRANSCRIPT}.completed", "transcript") == TEXT


def test_it_does_not_translate(hearing):
    answer = transcribe(hearing, "translations")

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


def test_a_killed_worker_is_started_again_and_the_recording_goes_on(hearing):
    tones = [(hz, 0.9) for _ in range(160) for hz in (400, 0, 800, 0)]
    form = [("model", (None, "ctc")), ("file", ("long.wav", tones_file(tones), "audio/wav"))]
    told = transcribe_through_a_kill(hearing, form)
    last = json.loads(told.decode().strip().rpartition("data: ")[2])

    assert (last["type"], last["text"]) == ("transcript.text.done", " ".join(["one two"] * 160))
