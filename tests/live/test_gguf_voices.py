"""Speech of voices that llama.cpp computes, by a served process and the official client."""

import base64
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.engine.pocket_voice import FRAME_SAMPLES, RATE_HZ, write_pocket_voice
from tests.kills import kill_at_work, sleeps
from tests.media_files import wav
from tests.missing import missing
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.voice import decode_audio

TEXT = "One two, three four! Four three two one."
SENTENCES = 2
HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Iterator[Served]:
    if find_spec("av") is None:
        missing("the extra is not installed: pip install 'llm-backend[audio]'")
    folder: Path = tmp_path_factory.mktemp("speaker")
    models = []
    for name, ends in (("pocket", True), ("endless", False)):
        model, projector = write_pocket_voice(folder / name, ends=ends)
        models.append({"id": name, "path": str(model), "mmproj": str(projector)})
    samples = folder / "pocket" / "voices"
    samples.mkdir()
    for name, pitch in (("anna", 0.5), ("bert", 0.05)):
        (samples / f"{name}.wav").write_bytes(wav(2, pitch=pitch, rate=RATE_HZ))
    config = {"models": models, "threads": 1, "aliases": ["tts-1=pocket"], "speech_concurrency": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with serve(folder / "data", "--config", str(folder / "config.yaml")) as served:
        yield served


@pytest.fixture
def client(speaker) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=speaker.base_url, api_key="none", max_retries=0) as one:
        yield one


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "pocket", "voice": "anna", "input": TEXT, "response_format": "pcm", **fields}


def speech(speaker: Served, **fields: Any) -> httpx.Response:
    return httpx.post(f"{speaker.base_url}/audio/speech", json=body(**fields), timeout=60)


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_a_text_is_a_file_of_each_format(client, format):
    answer = client.audio.speech.create(**body(response_format=format))
    seconds, samples = decode_audio(answer.content, format)

    expected_s = SENTENCES * 3 * FRAME_SAMPLES / RATE_HZ
    assert seconds == pytest.approx(expected_s, abs=0.1)
    assert any(samples)


def test_events_hold_the_bytes_of_the_same_file(speaker):
    whole = speech(speaker).content
    lines = speech(speaker, stream_format="sse").iter_lines()
    *deltas, done = [json.loads(line.removeprefix("data: ")) for line in lines if line]

    assert b"".join(base64.b64decode(one["audio"]) for one in deltas) == whole
    assert len(deltas) >= SENTENCES
    assert done["type"] == "speech.audio.done"


def test_speakers_by_name_by_number_and_by_names_of_openai(speaker, client):
    anna, first, bert, second, alloy = (
        speech(speaker, voice=voice).content for voice in ("anna", "0", "bert", "1", "alloy")
    )
    voices = client.get("/audio/voices", cast_to=object)["voices"]

    assert anna == first == alloy != bert == second
    assert [one["id"] for one in voices if one["model"] == "pocket"][-2:] == ["anna", "bert"]
    assert [one["id"] for one in voices if one["model"] == "endless"][-1] == "default"


def test_half_of_the_speed_is_twice_the_audio(speaker):
    whole, slow = speech(speaker).content, speech(speaker, speed=0.5).content

    assert len(slow) == pytest.approx(2 * len(whole), rel=0.1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"voice": "no-such"}, "voice"),
        ({"voice": "2"}, "voice"),
        ({"input": "..."}, "input"),
        ({"instructions": "Whisper."}, "instructions"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(speaker, fields, param):
    answer = speech(speaker, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_voice_neither_chats_nor_transcribes(speaker, client):
    with pytest.raises(openai.BadRequestError, match="reading texts aloud"):
        client.chat.completions.create(model="pocket", messages=HI)
    card = client.models.retrieve("pocket").to_dict()
    info = httpx.get(f"{speaker.base_url}/info").json()

    assert "input_modalities" not in card
    assert card["output_modalities"] == ["audio"]
    assert {one["id"]: one["kind"] for one in info["models"]} == {
        "pocket": "speech", "endless": "speech",
    }  # fmt: skip


def test_a_client_that_leaves_makes_room_for_the_next(speaker):
    asked = body(model="endless", voice="default", input="One two three four. " * 40)
    with httpx.stream("POST", f"{speaker.base_url}/audio/speech", json=asked, timeout=60) as answer:
        next(answer.iter_raw())

    assert speech(speaker).status_code == 200  # the only permit was given back


def test_a_killed_worker_is_started_again_and_the_text_goes_on(speaker):
    # More than all buffers hold: the text is not read to its end when the worker is killed.
    asked = body(input="One two, three four. " * 195, speed=0.25)
    answered = speech(speaker, **asked)
    whole = answered.content
    with httpx.stream("POST", f"{speaker.base_url}/audio/speech", json=asked, timeout=60) as answer:
        pieces = answer.iter_raw()
        audio = next(pieces)
        kill_at_work(speaker, lambda: sleeps(speaker.process.pid))
        audio += b"".join(pieces)

    assert (answered.status_code, audio) == (200, whole)
    assert httpx.get(f"{speaker.address}/api/tags").json() == {"models": []}  # for chats
