"""Speech: limits, usage, routes, and what is missing, in this process."""

import json
import sys
import time
from typing import Any

import openai
import pytest

from tests.controllers.administration.conftest import served
from tests.gateway import backend, gateway
from tests.tone_voice import heard, require_voices, write_voice
from tests.upstream import FakeUpstream, Message, post
from tests.voice import PROGRAM, require_voice

BODY: dict[str, Any] = {"model": "builtin-voice", "voice": "alloy", "input": "Hello."}
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 3\r\n\r\nfar"


def asked(**fields: Any) -> bytes:
    return post(json.dumps(BODY | fields).encode(), path="/v1/audio/speech")


def error(answer: Message) -> dict[str, Any]:
    return json.loads(answer.body)["error"]


async def test_texts_beyond_the_concurrency_wait_and_then_are_a_503(tmp_path):
    require_voice()
    held = asked(input="Hello there. " * 300, speed=0.25, response_format="pcm")
    limits = {"speech_concurrency": 1, "queue_deadline_s": 0.05}
    async with gateway(tmp_path, voice_program=PROGRAM, **limits) as server:
        async with server.client() as first:
            await first.send(held)
            assert (await first.head()).status == 200
            refused = await server.ask(asked())
            first.cut()
        for _ in range(100):  # until the server has noticed
            if (answer := await server.ask(asked())).status == 200:
                break

    assert refused.status == 503
    assert (error(refused)["code"], refused.values(b"retry-after")) == ("overloaded", [b"1"])
    assert answer.status == 200


async def test_rate_limits_hold_and_characters_are_counted(tmp_path):
    require_voice()
    more = {"voice_program": PROGRAM, "key_requests_per_minute": 1}
    async with served(tmp_path, **more) as client:
        await client().audio.speech.create(**BODY)
        with pytest.raises(openai.RateLimitError) as refused:
            await client().audio.speech.create(**BODY)
        usage = await client().admin.organization.usage.audio_speeches(
            start_time=int(time.time()) - 120, group_by=["model"]
        )

    assert int(refused.value.response.headers["retry-after"]) <= 60
    (counted,) = [one for bucket in usage.data for one in bucket.results]
    assert (counted.model, counted.characters, counted.num_model_requests) == (
        "builtin-voice", len(BODY["input"]), 1,
    )  # fmt: skip


async def test_other_models_are_relayed_and_a_route_falls_back_to_the_voice(tmp_path):
    require_voice()
    async with FakeUpstream(answer=ANSWER) as far, FakeUpstream(answer=b"") as broken:
        settings = {
            "voice_program": PROGRAM,
            "backends": [backend(far, "far", "tts-1"), backend(broken, "broken", "tts-9")],
            "routes": {"reader": ("tts-9", "builtin-voice")},
        }
        async with gateway(tmp_path, **settings) as server:
            relayed = await server.ask(asked(model="tts-1"))
            fallen_back = await server.ask(asked(model="reader", response_format="wav"))

    assert relayed.body == b"far"
    assert (fallen_back.status, fallen_back.values(b"content-type")) == (200, [b"audio/wav"])


@pytest.mark.parametrize(
    ("missing", "named"),
    [("program", "apt-get install espeak-ng"), ("codecs", "llm-backend[audio]")],
)
async def test_a_missing_program_or_library_of_speech_is_a_501_that_names_it(
    tmp_path, monkeypatch, missing, named
):
    require_voice()
    program = "no-such-program" if missing == "program" else PROGRAM
    if missing == "codecs":
        monkeypatch.setitem(sys.modules, "av", None)
    async with gateway(tmp_path, voice_program=program) as server:
        answer = await server.ask(asked())
        voices = await server.ask(b"GET /v1/audio/voices HTTP/1.1\r\nhost: relay\r\n\r\n")
        listed = await server.ask(b"GET /v1/models HTTP/1.1\r\nhost: relay\r\n\r\n")
        retrieved = await server.ask(
            b"GET /v1/models/builtin-voice HTTP/1.1\r\nhost: relay\r\n\r\n"
        )

    for refused in (answer, voices):
        assert refused.status == 501
        assert named in error(refused)["message"]
    assert json.loads(listed.body)["data"] == []
    assert retrieved.status == 404


@pytest.mark.parametrize(
    ("lacking", "named"),
    [("extra", "llm-backend[voices]"), ("program", "apt-get install espeak-ng")],
)
async def test_a_missing_part_of_an_onnx_voice_is_a_501_that_names_it(
    tmp_path, monkeypatch, lacking, named
):
    require_voices()
    folder = write_voice(tmp_path / "tones", has_lexicon=False).parent
    if lacking == "extra":
        monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    settings = {"models": [{"path": str(folder), "load": "demand"}]}
    async with gateway(tmp_path, voice_program="no-such-program", **settings) as server:
        answer = await server.ask(asked(model="tones", voice="low"))
        listed = await server.ask(b"GET /v1/models HTTP/1.1\r\nhost: relay\r\n\r\n")

    assert (answer.status, error(answer)["code"]) == (501, "voice_not_installed")
    assert named in error(answer)["message"]
    assert (json.loads(listed.body)["data"] == []) == (lacking == "extra")


async def test_phonemes_of_a_voice_without_a_lexicon_are_the_programs(tmp_path):
    require_voices()
    folder = write_voice(tmp_path / "tones", has_lexicon=False).parent
    program = tmp_path / "speaks"
    program.write_text("#!/bin/sh\ncat | tr xyz abc\n")
    program.chmod(0o755)
    settings = {"models": [str(folder)], "voice_program": str(program)}
    async with gateway(tmp_path, **settings, speech_timeout_s=60) as server:
        fields = {"model": "tones", "voice": "high", "response_format": "pcm"}
        answer = await server.ask(asked(**fields, input="xz, yx! z"))

    assert heard(answer.body, 24_000)[0] == ["one", "three", "two", "one", "three"]


async def test_a_server_without_a_voice_has_no_such_model(tmp_path):
    async with gateway(tmp_path) as server:
        answer = await server.ask(asked())

    assert (answer.status, error(answer)["code"]) == (404, "model_not_found")
