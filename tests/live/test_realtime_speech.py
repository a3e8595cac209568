"""Realtime sessions that speak, by the local voice."""

import base64
from collections.abc import Iterator

import pytest

from tests.realtime_client import Events, message, opened, parts
from tests.serving import Served, serve
from tests.voice import PROGRAM, require_voice

ORDER = [
    "response.created", "response.output_item.added", "conversation.item.added",
    "response.content_part.added", "response.output_audio_transcript.delta",
    "response.output_audio.delta", "response.output_audio.done",
    "response.output_audio_transcript.done", "response.content_part.done",
    "conversation.item.done", "response.output_item.done", "response.done",
]  # fmt: skip


@pytest.fixture(scope="module")
def speaker(tmp_path_factory) -> Iterator[Served]:
    require_voice()
    with serve(
        tmp_path_factory.mktemp("speaker"), environment={"LLM_BACKEND_VOICE_PROGRAM": PROGRAM}
    ) as served:
        yield served


def audio(events: Events) -> bytes:
    deltas = [one["delta"] for one in events if one["type"] == "response.output_audio.delta"]
    return b"".join(map(base64.b64decode, deltas))


def test_an_answer_is_spoken_with_its_transcript(speaker):
    with opened(speaker) as session:
        session.send({"type": "session.update", "session": {"type": "realtime"}})
        config = session.receive()["session"]
        _, _, *events = session.answer(message("Hello!"))  # without those of the message

    assert config["output_modalities"] == ["audio"]
    assert config["audio"]["output"]["format"] == {"type": "audio/pcm", "rate": 24000}
    kinds = list(dict.fromkeys(one["type"] for one in events))
    assert sorted(kinds) == sorted(ORDER)
    assert [one for one in kinds if "delta" not in one] == [
        one for one in ORDER if "delta" not in one
    ]
    (item,) = events[-1]["response"]["output"]
    transcript = parts(events, "response.output_audio_transcript.delta")
    assert item["content"] == [{"type": "output_audio", "transcript": transcript}]
    assert len(audio(events)) > 24_000  # half a second
    assert any(audio(events))


def test_a_spoken_answer_is_truncated_to_what_was_heard(speaker):
    with opened(speaker) as session:
        events = session.answer(message("Hello!"))
        item_id = events[-1]["response"]["output"][0]["id"]
        length_ms = len(audio(events)) // 48
        cut = {"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0}
        session.send(
            {**cut, "audio_end_ms": length_ms + 50},
            {**cut, "audio_end_ms": length_ms // 2},
            {"type": "conversation.item.retrieve", "item_id": item_id},
        )
        beyond, truncated, retrieved = (session.receive() for _ in range(3))

    transcript = parts(events, "response.output_audio_transcript.delta")
    assert beyond["error"]["param"] == "audio_end_ms"
    assert truncated["audio_end_ms"] == length_ms // 2
    heard = retrieved["item"]["content"][0]["transcript"]
    assert transcript.startswith(heard)
    assert 0 < len(heard) < len(transcript)


@pytest.mark.parametrize(("type", "silence"), [("audio/pcmu", b"\xff"), ("audio/pcma", b"\xd5")])
def test_an_answer_is_spoken_for_telephones(speaker, type, silence):
    with opened(speaker) as session:
        format = {"format": {"type": type}, "voice": "nova"}
        events = session.answer(message("Hello!"), audio={"output": format})

    assert events[-1]["response"]["audio"]["output"] == format
    assert len(audio(events)) > 4000
    assert silence in audio(events)


def test_a_response_may_be_text_and_a_voice_may_be_unknown(speaker):
    with opened(speaker) as session:
        text = session.answer(message("Hello!"), output_modalities=["text"])
        unknown = session.answer(audio={"output": {"voice": "unheard"}})

    assert text[-1]["response"]["output"][0]["content"][0]["type"] == "output_text"
    (error,) = [one["error"] for one in unknown if one["type"] == "error"]
    assert error["param"] == "voice"
    assert unknown[-1]["response"]["status"] == "failed"


def test_a_server_without_a_voice_refuses_to_speak(server):
    with opened(server) as session:
        session.send({"type": "response.create", "response": {"output_modalities": ["audio"]}})
        error = session.receive()["error"]

    assert error["param"] == "response.output_modalities"
    assert "no voice" in error["message"]
