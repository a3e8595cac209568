"""Speech of the local voice, by a served process and the official client."""

import base64
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.patience import wait_until
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.voice import PROGRAM, decode_audio, require_voice, speaking

TEXT = "The first sentence is short. Then comes a second one, which is a little longer!"
HI: list[Any] = [{"role": "user", "content": "Hi"}]
LONG = ("This is one of very many sentences. " * 120)[:4096]
STALLED = {"input": LONG, "speed": 0.25, "response_format": "pcm"}  # more than all buffers hold
FORMATS = {
    "mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac",
    "wav": "audio/wav", "pcm": "audio/pcm",
}  # fmt: skip


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Iterator[Served]:
    require_voice()
    voices = {"LLM_BACKEND_VOICE_PROGRAM": PROGRAM, "LLM_BACKEND_VOICES": "mine=de+f3,echo=en-gb"}
    aliases = ("--alias", "tts-1=builtin-voice")
    folder = tmp_path_factory.mktemp("speaker")
    with serve(folder, "--model", "none", *aliases, environment=voices) as served:
        yield served


@pytest.fixture
def client(speaker) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=speaker.base_url, api_key="none", max_retries=0) as one:
        yield one


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "builtin-voice", "voice": "alloy", "input": TEXT, **fields}


def speech(speaker: Served, **fields: Any) -> httpx.Response:
    return httpx.post(f"{speaker.base_url}/audio/speech", json=body(**fields), timeout=60)


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    yield from (json.loads(line.removeprefix("data: ")) for line in lines if line)


@pytest.mark.parametrize("format", FORMATS)
def test_a_text_is_a_file_of_each_format_with_its_media_type(client, tmp_path, format):
    path = tmp_path / "speech"
    with client.audio.speech.with_streaming_response.create(**body(), response_format=format) as on:
        media_type = on.headers["content-type"]
        on.stream_to_file(path)
    seconds, samples = decode_audio(path.read_bytes(), format)

    assert media_type == FORMATS[format]
    assert 3 < seconds < 9
    assert max(samples) > 50


def test_events_hold_the_bytes_of_the_same_file(speaker):
    whole = speech(speaker, response_format="wav").content
    answer = speech(speaker, response_format="wav", stream_format="sse")
    *deltas, done = events(answer.iter_lines())

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert {one["type"] for one in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(one["audio"]) for one in deltas) == whole
    assert done["type"] == "speech.audio.done"


def test_voice_and_speed_change_the_audio(speaker):
    seconds = {
        speed: decode_audio(speech(speaker, speed=speed).content, "mp3")[0]
        for speed in (0.25, 0.5, 1, 2, 4)
    }
    audio = {speech(speaker, voice=one).content for one in ("alloy", "nova", "mine", "fr-fr+f2")}

    for speed, length_s in seconds.items():
        assert length_s * speed == pytest.approx(seconds[1], rel=0.25)
    assert len(audio) == 4
    assert speech(speaker, voice={"id": "en-gb"}).content == speech(speaker, voice="echo").content


def test_an_alias_speaks_and_both_names_are_listed(speaker, client):
    with_alias = client.audio.speech.create(**body(model="tts-1"))
    models = {one.id: one.to_dict() for one in client.models.list()}
    voices = client.get("/audio/voices", cast_to=object)["voices"]

    assert with_alias.content == client.audio.speech.create(**body()).content
    assert set(models) == {"builtin-voice", "tts-1"}
    assert models["builtin-voice"]["output_modalities"] == ["audio"]
    assert client.models.retrieve("builtin-voice").id == "builtin-voice"
    assert httpx.get(f"{speaker.address}/api/tags").json() == {"models": []}  # for chats
    named = {one["id"]: one for one in voices}
    assert named["mine"]["language"] == "de"
    assert named["alloy"]["model"] == "builtin-voice"
    assert "fr-fr" in named


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": " \n"}, "input"),
        ({"input": ""}, "input"),
        ({"input": "a" * 4097}, "input"),
        ({"input": 7}, "input"),
        ({"voice": "no-such"}, "voice"),
        ({"voice": "../../../etc/passwd"}, "voice"),
        ({"voice": {"id": "--version"}}, "voice"),
        ({"voice": None}, "voice"),
        ({"speed": 0.2}, "speed"),
        ({"speed": 4.1}, "speed"),
        ({"response_format": "ogg"}, "response_format"),
        ({"stream_format": "json"}, "stream_format"),
        ({"instructions": "Whisper."}, "instructions"),
        ({"n": 2}, "n"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(speaker, fields, param):
    answer = speech(speaker, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_voice_does_not_chat_and_unknown_models_do_not_speak(client):
    with pytest.raises(openai.BadRequestError, match="is a voice"):
        client.chat.completions.create(model="builtin-voice", messages=HI)
    with pytest.raises(openai.BadRequestError, match="is a voice"):
        client.embeddings.create(model="tts-1", input="a")
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("builtin-voice")
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(**body(model="tts-2"))


def test_audio_leaves_while_the_rest_is_being_read_and_a_client_that_leaves_ends_it(speaker):
    request = httpx.Request(
        "POST", f"{speaker.base_url}/audio/speech", json=body(**STALLED, stream_format="audio")
    )
    port = int(speaker.address.rpartition(":")[2])
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"POST /v1/audio/speech HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        first = raw.recv(4096)

        assert first.startswith(b"HTTP/1.1 200 OK")
        assert len(speaking(speaker.process.pid)) == 1
    deadline = time.monotonic() + 120
    while speaking(speaker.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_a_killed_voice_breaks_its_answer_and_the_next_one_works(speaker, stream_format):
    asked = body(**STALLED, stream_format=stream_format)
    with httpx.stream("POST", f"{speaker.base_url}/audio/speech", json=asked) as answer:
        pieces = answer.iter_bytes()
        told = next(pieces)
        (pid,) = speaking(speaker.process.pid)
        os.kill(pid, signal.SIGKILL)
        if stream_format == "audio":
            with pytest.raises(httpx.RemoteProtocolError):  # no end: the client knows
                list(pieces)
        else:
            told += b"".join(pieces)
            *_, last = events(iter(told.decode().splitlines()))
            assert last["error"]["code"] == "engine_unavailable"

    assert speech(speaker).status_code == 200


def test_metrics_count_seconds_of_audio(speaker):
    def counted() -> float:
        lines = httpx.get(f"{speaker.address}/metrics").text.splitlines()
        name = 'llm_backend_speech_seconds_total{model="builtin-voice"} '
        return sum(float(one.removeprefix(name)) for one in lines if one.startswith(name))

    before = counted()
    seconds, _ = decode_audio(speech(speaker).content, "mp3")

    wait_until(lambda: counted() > before)
    assert counted() - before == pytest.approx(seconds, abs=0.3)
