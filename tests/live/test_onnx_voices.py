"""Speech of ONNX voices, by a served process and the official client."""

import base64
import json
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.patience import wait_until
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.tone_voice import TONES, heard, require_voices, write_voice
from tests.voice import decode_audio

TEXT = "One two, three four! Four three two one."
WORDS = [*TONES, *reversed(TONES)]
RATE_HZ = 24_000
SENTENCES = 195
STALLED = {  # more than all buffers hold
    "input": "One two, three four. " * SENTENCES, "speed": 0.25, "response_format": "pcm",
}  # fmt: skip
HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Iterator[Served]:
    require_voices()
    folder = tmp_path_factory.mktemp("speaker")
    write_voice(folder / "tones")
    write_voice(folder / "models" / "someone" / "many", names=("af_nova", "am_echo", "x"))
    bounds = {"LLM_BACKEND_THREADS": "1", "LLM_BACKEND_SPEECH_CONCURRENCY": "1"}
    flags = ("--model", str(folder / "tones"), "--alias", "tts-1=tones", "--serve-models-folder")
    with serve(folder, *flags, environment=bounds) as served:
        yield served


@pytest.fixture
def client(speaker) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=speaker.base_url, api_key="none", max_retries=0) as one:
        yield one


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "tones", "voice": "low", "input": TEXT, "response_format": "pcm", **fields}


def speech(speaker: Served, **fields: Any) -> httpx.Response:
    return httpx.post(f"{speaker.base_url}/audio/speech", json=body(**fields), timeout=60)


def words(speaker: Served, **fields: Any) -> list[str]:
    return heard(speech(speaker, **fields).content, RATE_HZ)[0]


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    yield from (json.loads(line.removeprefix("data: ")) for line in lines if line)


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_text_is_a_file_of_each_format(client, format):
    answer = client.audio.speech.create(**body(response_format=format))
    seconds, samples = decode_audio(answer.content, format)

    assert seconds == pytest.approx(1.0, abs=0.2)  # words, blanks and punctuation
    if format in ("flac", "wav", "pcm"):  # without losses
        assert heard(samples, RATE_HZ)[0] == WORDS


def test_events_hold_the_bytes_of_the_same_file_and_come_by_sentences(speaker):
    whole = speech(speaker).content
    answer = speech(speaker, stream_format="sse")
    *deltas, done = events(answer.iter_lines())

    assert b"".join(base64.b64decode(one["audio"]) for one in deltas) == whole
    assert len(deltas) >= 2
    assert done["type"] == "speech.audio.done"


def test_speakers_by_name_by_number_and_by_names_of_openai(speaker):
    loud = {
        voice: heard(speech(speaker, voice=voice).content, RATE_HZ)[1]
        for voice in ("low", "0", "alloy", "high", "1", "ash")
    }

    assert [round(one, 1) for one in loud.values()] == [0.5, 0.5, 0.5, 0.1, 0.1, 0.1]


def test_half_of_the_speed_is_twice_the_audio(speaker):
    halves = [list(TONES), list(reversed(TONES))]

    assert words(speaker, speed=0.5) == [word for half in halves for word in (*half, *half)]


def test_a_voice_of_the_folder_is_a_model_with_its_own_names(speaker, client):
    models = {one.id: one.to_dict() for one in client.models.list()}
    voices = client.get("/audio/voices", cast_to=object)["voices"]
    named = {one["id"]: one["name"] for one in voices if one["model"] == "many"}

    assert set(models) == {"tones", "tts-1", "many"}
    assert models["many"]["output_modalities"] == ["audio"]
    assert [one["id"] for one in voices if one["model"] == "tones"][-2:] == ["low", "high"]
    assert (named["nova"], named["echo"], named["x"]) == ("nova (af_nova)", "echo (am_echo)", "x")
    assert words(speaker, model="many", voice="nova", input="One two.") == ["one", "two"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"voice": "no-such"}, "voice"),
        ({"voice": "2"}, "voice"),
        ({"voice": "../low"}, "voice"),
        ({"input": " \n"}, "input"),
        ({"input": "..."}, "input"),
        ({"input": "zebra crossing"}, "input"),
        ({"instructions": "Whisper."}, "instructions"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(speaker, fields, param):
    answer = speech(speaker, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_words_of_a_text_are_not_in_the_log(speaker):
    assert words(speaker, input="One zebra two.") == ["one", "two"]
    assert "zebra" not in speaker.log.read_text()


def test_a_voice_does_not_chat(speaker, client):
    with pytest.raises(openai.BadRequestError, match="reading texts aloud"):
        client.chat.completions.create(model="tones", messages=HI)
    with pytest.raises(openai.BadRequestError, match="cannot embed"):
        client.embeddings.create(model="tones", input="a")
    assert httpx.get(f"{speaker.address}/api/tags").json() == {"models": []}  # for chats


def test_a_client_that_leaves_makes_room_for_the_next(speaker):
    asked = httpx.Request("POST", f"{speaker.base_url}/audio/speech", json=body(**STALLED))
    port = int(speaker.address.rpartition(":")[2])
    head = "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"POST /v1/audio/speech HTTP/1.1\r\n{head}\r\n".encode() + asked.read())
        first = raw.recv(4096)

    assert first.startswith(b"HTTP/1.1 200 OK")
    assert words(speaker) == WORDS  # the only permit was given back


def test_a_killed_worker_is_started_again_and_the_text_goes_on(speaker):
    asked = body(**STALLED | {"speed": 1})
    with httpx.stream("POST", f"{speaker.base_url}/audio/speech", json=asked, timeout=60) as answer:
        pieces = answer.iter_bytes()
        audio = next(pieces)
        for worker in speaker.workers():
            os.kill(worker, signal.SIGKILL)
        audio += b"".join(pieces)

    assert heard(audio, RATE_HZ)[0] == [*TONES] * SENTENCES


def test_metrics_count_seconds_of_audio(speaker):
    def counted() -> float:
        lines = httpx.get(f"{speaker.address}/metrics").text.splitlines()
        name = 'llm_backend_speech_seconds_total{model="tones"} '
        return sum(float(one.removeprefix(name)) for one in lines if one.startswith(name))

    speech(speaker)
    wait_until(lambda: counted() > 0)


def test_info_names_the_models_that_speak(speaker):
    speech(speaker)
    info = httpx.get(f"{speaker.base_url}/info").json()
    kinds = {one["id"]: one["kind"] for one in info["models"]}

    assert kinds == {"tones": "speech", "many": "speech"}
