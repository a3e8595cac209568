"""Recordings transcribed by a served process, with the real engine and the official client."""

import io
import json
import math
import random
import subprocess
import time
import wave
from array import array
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import httpx
import openai
import pytest

from tests.audio_files import RATE_HZ, float_wav_file, wav_file
from tests.kills import transcribe_through_a_kill
from tests.missing import missing
from tests.patience import wait_until
from tests.serving import Served, children_of, serve
from tests.strict_sdk import StrictOpenAI
from tests.voice import PROGRAM, decode_audio, require_voice
from tests.whisper_models import HELLO, require_transcription, write_whisper

TEXT = "Hello world. Grüße an alle!"
AUDIO = wav_file(4)
VOICE_HZ = 22_050
LIMIT_BYTES = 48 * 1024 * 1024
HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Iterator[Served]:
    require_transcription()
    folder = tmp_path_factory.mktemp("hearing")
    model = write_whisper(folder / "hello.bin")
    slow = write_whisper(folder / "slow.bin", None)
    flags = ("--model", str(model), "--model", str(slow), "--alias", "whisper-1=hello")
    bounds = {
        "LLM_BACKEND_THREADS": "1",
        "LLM_BACKEND_VOICE_PROGRAM": PROGRAM,
        "LLM_BACKEND_TRANSCRIPTION_LIMIT_S": "1000",
        "LLM_BACKEND_TRANSCRIPTION_LIMIT_BYTES": str(LIMIT_BYTES),
    }
    with serve(folder, *flags, environment=bounds) as served:
        yield served


@pytest.fixture
def spoken(hearing, client) -> openai.OpenAI:
    """A client of a server that speaks, too."""
    require_voice()
    return client


@pytest.fixture
def client(hearing) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(
        base_url=hearing.base_url, api_key="none", admin_api_key="none", max_retries=0
    ) as one:
        yield one


def transcribe(
    hearing: Served,
    file: bytes | None = None,
    path: str = "transcriptions",
    *,
    file_first: bool = False,
    **fields: str,
) -> httpx.Response:
    data = [(name, (None, value)) for name, value in {"model": "hello", **fields}.items()]
    files = [("file", ("audio.wav", AUDIO if file is None else file, "audio/wav"))]
    form = [*files, *data] if file_first else [*data, *files]
    return httpx.post(f"{hearing.base_url}/audio/{path}", files=form, timeout=60)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]


def test_the_official_client_gets_the_text_and_the_seconds(client):
    answer = client.audio.transcriptions.create(model="hello", file=("a.wav", AUDIO))

    assert answer.text == TEXT
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == pytest.approx(4)


def test_verbose_answers_have_segments_and_words(client):
    answer = client.audio.transcriptions.create(
        model="whisper-1",
        file=("a.wav", AUDIO),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )

    assert (answer.language, answer.duration) == ("german", pytest.approx(4))
    assert [(one.start, one.text.strip(), one.end) for one in answer.segments] == list(HELLO)
    assert [one.word for one in answer.words] == TEXT.split()
    times = [(one.start, one.end) for one in answer.words]
    assert times == sorted(times)
    assert all(-1 < one.avg_logprob < 0 for one in answer.segments)
    assert all(0 <= one.no_speech_prob < 1 for one in answer.segments)


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("text", f"{TEXT}\n"),
        (
            "srt",
            "1\n00:00:00,000 --> 00:00:02,000\nHello world.\n\n"
            "2\n00:00:02,000 --> 00:00:03,500\nGrüße an alle!\n\n",
        ),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:02.000\nHello world.\n\n"
            "00:00:02.000 --> 00:00:03.500\nGrüße an alle!\n\n",
        ),
    ],
)
@pytest.mark.parametrize("path", ["transcriptions", "translations"])
def test_texts_and_subtitles(hearing, path, format, text):
    answer = transcribe(hearing, path=path, response_format=format)

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == text


def test_a_stream_has_a_delta_for_each_segment(client):
    stream = client.audio.transcriptions.create(
        model="hello", file=("a.wav", AUDIO), stream=True, include=["logprobs"]
    )
    *deltas, done = list(stream)

    assert [one.delta for one in deltas] == ["Hello world.", " Grüße an alle!"]
    assert (done.type, done.text) == ("transcript.text.done", TEXT)
    assert [one.token for one in done.logprobs] == [f" {word}" for word in TEXT.split()]


def test_a_translation_is_english(client):
    with pytest.deprecated_call():  # the SDK calls all translations so
        answer = client.audio.translations.create(
            model="hello", file=("a.wav", AUDIO), response_format="verbose_json"
        )

    assert (answer.language, answer.task) == ("english", "translate")


def test_the_file_may_come_before_the_model(hearing):
    assert transcribe(hearing, wav_file(10), file_first=True).json()["text"] == TEXT


def test_a_form_over_the_limit_is_refused_wherever_its_model_is(hearing):
    over_long = bytes(LIMIT_BYTES + 2 * 1024 * 1024)
    answers = [transcribe(hearing, over_long, file_first=is_first) for is_first in (True, False)]

    assert [one.status_code for one in answers] == [413, 413]


def test_a_prompt_reaches_the_model(hearing):
    assert transcribe(hearing, prompt=" Hello").json()["text"] != TEXT  # its positions shift


def _with_a_long_pause() -> tuple[bytes, float]:
    """A sentence twice with quiet noise between, and when it begins again, in seconds."""
    require_voice()
    if find_spec("webrtcvad") is None:
        missing("the extra is not installed: pip install 'llm-backend[realtime]'")
    spoken = subprocess.run([PROGRAM, "--stdout", "Good morning."], capture_output=True, check=True)
    sentence = spoken.stdout[44:]
    noise = random.Random(0)  # audio, no secret
    pause = array("h", (noise.randint(-20, 20) for _ in range(5 * VOICE_HZ))).tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, VOICE_HZ, 0, "NONE", ""))
        writer.writeframes(sentence + pause + sentence)
    return file.getvalue(), (len(sentence) + len(pause)) / 2 / VOICE_HZ


@pytest.mark.parametrize(
    "strategy", ["auto", {"type": "server_vad", "threshold": 0.9, "silence_duration_ms": 500}]
)
def test_pauses_are_not_transcribed_and_divide_windows(client, strategy):
    audio, again_s = _with_a_long_pause()
    asked: Any = {"model": "hello", "response_format": "verbose_json"}
    divided = client.audio.transcriptions.create(
        file=("a.wav", audio), chunking_strategy=strategy, **asked
    )
    whole = client.audio.transcriptions.create(file=("a.wav", audio), **asked)

    first, second = divided.segments
    assert first.end < 1.5  # cut at the end of its window
    assert second.start == pytest.approx(again_s, abs=0.5)
    assert whole.segments[1].start == HELLO[1][0]
    assert divided.duration == whole.duration


def test_a_recording_without_speech_is_a_400(hearing):
    require_voice()
    quiet = wav_file(3, amplitude=0.0005)
    strict = {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.9"}
    answer = transcribe(hearing, quiet, **strict)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_silent")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        (
            {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "2"},
            "chunking_strategy.threshold",
        ),
        (
            {"chunking_strategy[type]": "server_vad", "chunking_strategy[prefix_padding_ms]": "-1"},
            "chunking_strategy.prefix_padding_ms",
        ),
        ({"language": "xx"}, "language"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"response_format": "mp3"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"stream": "true", "response_format": "srt"}, "stream"),
        ({"include[]": "logprobs", "response_format": "text"}, "include"),
        ({"include[]": "usage"}, "include[0]"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities"),
        ({"chunking_strategy[type]": "semantic_vad"}, "chunking_strategy.type"),
        ({"known_speaker_names[]": "Ann"}, "known_speaker_names"),
        ({"known_speaker_references[]": "data:,"}, "known_speaker_references"),
        ({"keywords[]": "word"}, "keywords"),
        ({"languages[]": "de"}, "languages"),
        ({"n": "2"}, "n"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(hearing, fields, param):
    answer = transcribe(hearing, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


NO_NUMBERS = [0.1, math.nan, math.inf, 0.2] * RATE_HZ


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"no audio at all",
        AUDIO[:30],
        AUDIO[:44],
        b"RIFF" + bytes(1000),
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        wav_file(4, amplitude=0),
        float_wav_file(NO_NUMBERS),
        wav_file(1001),
    ],
    ids=["empty", "text", "cut", "no-samples", "zeros", "playlist", "silent", "nan", "over-long"],
)
def test_a_bad_recording_is_a_400_and_the_worker_lives(hearing, file):
    workers = hearing.workers()
    answer = transcribe(hearing, file)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    assert transcribe(hearing).status_code == 200
    assert hearing.workers() == workers


def test_a_form_without_model_or_file_is_refused(hearing):
    url = f"{hearing.base_url}/audio/transcriptions"
    file = {"file": ("a.wav", AUDIO)}
    without_model = httpx.post(url, files=file, timeout=60)
    without_file = httpx.post(url, files={"model": (None, "hello")}, timeout=60)

    assert without_model.json()["error"]["param"] == "model"
    assert without_file.json()["error"]["param"] == "file"
    assert httpx.post(url, json={"model": "hello"}, timeout=60).status_code == 415


def test_a_model_that_transcribes_does_nothing_else(client):
    with pytest.raises(openai.BadRequestError, match="transcri"):
        client.chat.completions.create(model="hello", messages=HI)
    with pytest.raises(openai.BadRequestError, match="transcri"):
        client.embeddings.create(model="hello", input="a")
    with pytest.raises(openai.BadRequestError, match="transcri"):
        client.completions.create(model="hello", prompt="a")
    with pytest.raises(openai.NotFoundError):
        client.audio.transcriptions.create(model="whisper-2", file=("a.wav", AUDIO))
    card = client.models.retrieve("hello").to_dict()
    assert card["input_modalities"] == ["audio"]


def test_windows_of_a_long_recording_follow_each_other(hearing):
    answer = transcribe(hearing, wav_file(70), response_format="verbose_json").json()

    # behind a context the model says less; each window begins where the last one ended
    assert answer["duration"] == pytest.approx(70)
    assert [one["seek"] for one in answer["segments"]] == sorted(
        one["seek"] for one in answer["segments"]
    )
    assert max(one["seek"] for one in answer["segments"]) == 6000
    starts = [one["start"] for one in answer["segments"]]
    assert starts == sorted(starts)


def test_a_killed_worker_is_started_again_and_the_recording_goes_on(hearing):
    long = wav_file(450)
    whole = events(transcribe(hearing, long, stream="true"))
    form = [("model", (None, "hello")), ("file", ("a.wav", long))]
    told = transcribe_through_a_kill(hearing, form)
    lines = [line for line in told.decode().splitlines() if line]

    assert [json.loads(line.removeprefix("data: ")) for line in lines] == whole
    assert whole[-1]["type"] == "transcript.text.done"


def test_a_client_that_leaves_ends_the_decoding(hearing):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{hearing.base_url}/audio/transcriptions",
            files=[("model", (None, "slow")), ("file", ("a.wav", wav_file(900)))],
            timeout=httpx.Timeout(60, read=1),
        )

    deadline = time.monotonic() + 30
    while _decoders(hearing):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _decoders(hearing: Served) -> list[int]:
    return children_of(hearing.process.pid, b"audio_reader")


def test_speech_of_the_official_client_is_transcribed_in_its_whole_length(spoken, tmp_path):
    path = tmp_path / "speech.mp3"
    with spoken.audio.speech.with_streaming_response.create(
        model="builtin-voice", voice="alloy", input="Hello to all the world, and to you!"
    ) as speech:
        speech.stream_to_file(path)
    seconds, _ = decode_audio(path.read_bytes(), "mp3")
    with path.open("rb") as file:
        answer = spoken.audio.transcriptions.create(
            model="hello", file=file, response_format="verbose_json"
        )

    assert answer.text == TEXT
    assert 1 < seconds < 9
    assert answer.duration == pytest.approx(seconds, abs=0.1)
    assert answer.usage.seconds == pytest.approx(seconds, abs=1)


def test_metrics_and_usage_count_seconds(hearing, client):
    def counted() -> float:
        lines = httpx.get(f"{hearing.address}/metrics", timeout=60).text.splitlines()
        name = 'llm_backend_transcription_seconds_total{model="hello"} '
        return sum(float(one.removeprefix(name)) for one in lines if one.startswith(name))

    def used() -> float:
        told = client.admin.organization.usage.audio_transcriptions(
            start_time=int(time.time()) - 3600, limit=2
        )
        return sum(one.seconds for bucket in told.data for one in bucket.results)

    before, used_before = counted(), used()
    transcribe(hearing)

    wait_until(lambda: counted() > before)
    assert counted() - before == pytest.approx(4)
    wait_until(lambda: used() > used_before)
    assert used() - used_before == 4
