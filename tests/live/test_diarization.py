"""Transcripts with speakers by a served process, with the real engines and the official client."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.audio_files import wav_file
from tests.kills import transcribe_through_a_kill
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.tone_speakers import tones_file, write_speakers
from tests.tone_voice import require_voices
from tests.whisper_models import require_transcription, write_whisper

ANN, BOB = 400, 1600
TALK = tones_file([(ANN, 2), (BOB, 2)])  # as the model says it: two segments
SAID = ["Hello world.", "Grüße an alle!"]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Iterator[Served]:
    require_transcription()
    require_voices()
    folder = tmp_path_factory.mktemp("hearing")
    model = write_whisper(folder / "hello.bin")
    speakers = write_speakers(folder / "speakers").parent
    flags = ("--model", str(model), "--model", str(speakers))
    with serve(folder, *flags, environment={"LLM_BACKEND_THREADS": "1"}) as served:
        yield served


@pytest.fixture
def client(hearing) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=hearing.base_url, api_key="none", max_retries=0) as one:
        yield one


def transcribe(hearing: Served, *fields: tuple[str, str], file: bytes = TALK) -> httpx.Response:
    form: list[Any] = [
        ("model", (None, "hello")),
        ("response_format", (None, "diarized_json")),
        *((name, (None, value)) for name, value in fields),
        ("file", ("talk.wav", file, "audio/wav")),
    ]
    return httpx.post(f"{hearing.base_url}/audio/transcriptions", files=form, timeout=120)


def sample(hz: int, seconds: float = 3) -> str:
    data = tones_file([(hz, seconds)])
    return f"data:audio/wav;base64,{base64.b64encode(data).decode()}"


def test_segments_have_speakers_in_the_order_of_the_transcript(client):
    answer: Any = client.audio.transcriptions.create(
        model="hello", file=("talk.wav", TALK), response_format="diarized_json"
    )

    segments = [(one.speaker, one.start, one.end, one.text) for one in answer.segments]
    assert segments == [("A", 0, 2, SAID[0]), ("B", 2, 3.5, SAID[1])]
    assert (answer.task, answer.duration, answer.usage.seconds) == ("transcribe", 4, 4)
    assert answer.text == " ".join(SAID)
    assert len({one.id for one in answer.segments}) == 2


def test_a_stream_has_deltas_and_segments(client):
    stream: Any = client.audio.transcriptions.create(
        model="hello", file=("talk.wav", TALK), response_format="diarized_json", stream=True
    )
    *events, done = list(stream)

    assert [one.type for one in events] == [
        "transcript.text.delta", "transcript.text.segment",
    ] * 2  # fmt: skip
    assert [one.segment_id for one in events[::2]] == [one.id for one in events[1::2]]
    assert [(one.speaker, one.text) for one in events[1::2]] == [("A", SAID[0]), ("B", SAID[1])]
    assert "".join(one.delta for one in events[::2]) == done.text == " ".join(SAID)


def test_known_speakers_have_their_names(client):
    answer: Any = client.audio.transcriptions.create(
        model="hello",
        file=("talk.wav", TALK),
        response_format="diarized_json",
        known_speaker_names=["bob", "A"],
        known_speaker_references=[sample(BOB), sample(3000)],
    )

    assert [one.speaker for one in answer.segments] == ["B", "bob"]  # A is another voice


def test_a_recording_without_any_speaker_has_one(hearing):
    answer = transcribe(hearing, file=wav_file(4, amplitude=0.0001)).json()

    assert [one["speaker"] for one in answer["segments"]] == ["A", "A"]


def test_speakers_of_a_long_recording_keep_their_letters(hearing):
    long = tones_file([(ANN, 2), (BOB, 2), (0, 297), (BOB, 2), (ANN, 2)])
    answer = transcribe(hearing, file=long).json()

    speakers = {one["start"]: one["speaker"] for one in answer["segments"]}
    assert answer["duration"] == 305
    assert [one for at, one in speakers.items() if at < 4] == ["A", "B"]
    assert {one for at, one in speakers.items() if at > 270} <= {"A", "B"}
    assert max(speakers) > 270


def test_killed_workers_are_started_again_and_speakers_keep_their_letters(hearing):
    long = tones_file([(ANN, 2), (BOB, 2)] * 80 + [(0, 1)])
    form: list[Any] = [
        ("model", (None, "hello")),
        ("response_format", (None, "diarized_json")),
        ("file", ("talk.wav", long, "audio/wav")),
    ]
    whole = segments_of(transcribe(hearing, ("stream", "true"), file=long).text)

    assert segments_of(transcribe_through_a_kill(hearing, form).decode()) == whole
    assert {speaker for speaker, *_ in whole} == {"A", "B"}


def segments_of(stream: str) -> list[tuple[Any, ...]]:
    """Speaker, start, end and text of each segment; the last line is that of the whole text."""
    events = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line]
    assert events[-1]["type"] == "transcript.text.done"
    return [
        (one["speaker"], one["start"], one["end"], one["text"])
        for one in events
        if one["type"] == "transcript.text.segment"
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("known_speaker_names[]", "Ann")], "known_speaker_references"),
        ([("known_speaker_references[]", sample(ANN))], "known_speaker_references"),
        (
            [("known_speaker_names[]", "Ann")] * 2
            + [("known_speaker_references[]", sample(ANN))] * 2,
            "known_speaker_names",
        ),
        *(
            (
                [("known_speaker_names[]", "Ann"), ("known_speaker_references[]", url)],
                "known_speaker_references[0]",
            )
            for url in (
                "https://example.com/ann.wav",
                "data:audio/wav;base64,!",
                "data:audio/wav;base64,bm8gc291bmQ=",
                sample(ANN, 1.5),
                sample(ANN, 12),
                sample(0),
            )
        ),
        ([("include[]", "logprobs")], "include"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(hearing, fields, param):
    answer = transcribe(hearing, *fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_references_that_are_too_large_together_name_their_limit(hearing):
    large = [("known_speaker_references[]", "a" * 9_000_000)] * 2
    error = transcribe(hearing, *large).json()["error"]

    assert error["param"].startswith("known_speaker_references")
    assert "all values together may hold at most 16777216 bytes" in error["message"]


def test_known_speakers_need_the_format(hearing):
    answer = httpx.post(
        f"{hearing.base_url}/audio/transcriptions",
        data={"model": "hello", "known_speaker_names[]": "Ann"},
        files={"file": ("talk.wav", TALK)},
        timeout=60,
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "known_speaker_names")


def test_a_model_of_speakers_does_nothing_else(client):
    with pytest.raises(openai.BadRequestError, match="tells speakers apart; it cannot transcribe"):
        client.audio.transcriptions.create(model="speakers", file=("talk.wav", TALK))
    with pytest.raises(openai.BadRequestError, match="tell"):
        client.chat.completions.create(
            model="speakers", messages=[{"role": "user", "content": "Hi"}]
        )
    with pytest.raises(openai.BadRequestError, match="tells speakers apart; it cannot speak"):
        client.audio.speech.create(model="speakers", voice="nova", input="Hi")

    assert client.models.retrieve("speakers").to_dict()["input_modalities"] == ["audio"]
