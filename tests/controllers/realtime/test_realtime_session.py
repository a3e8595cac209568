"""Realtime sessions with a client and a model that wait for the test."""

import asyncio
import base64
import contextlib
import gc
import json
import random
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from importlib.util import find_spec
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.contract import load_document
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.validation import Validators
from llm_backend.controllers.realtime import RealtimeSession
from llm_backend.controllers.realtime.conversation import Conversation, model_input
from llm_backend.controllers.realtime.event_sender import EventSender
from llm_backend.controllers.realtime.input_audio import InputAudio, Turn
from llm_backend.controllers.realtime.input_turns import Action, InputTurns
from llm_backend.controllers.realtime.session_config import Capabilities, SessionConfig
from llm_backend.controllers.realtime.session_requests import SessionRequests
from llm_backend.controllers.realtime.transcribed_turn import TranscribedTurn
from llm_backend.errors import ClientGone, ServiceUnavailable, TooLarge
from tests.missing import missing
from tests.patience import comes_true


class WaitingClient:
    """A client that reads nothing while `reads` is not set."""

    def __init__(self, *events: dict[str, Any], reads_until: str = "") -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.say(*events)
        self._reads_until = reads_until  # a type of event
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_gone = False
        self.read: list[dict[str, Any]] = []

    def say(self, *events: dict[str, Any]) -> None:
        for event in events:
            self._events.put_nowait(event)

    async def messages(self) -> AsyncGenerator[str, None]:
        while True:
            yield json.dumps(await self._events.get())

    async def send(self, message: str) -> None:
        await self.reads.wait()
        if self.is_gone:
            raise ClientGone
        self.read.append(json.loads(message))
        if self.read[-1]["type"] == self._reads_until:
            self.reads.clear()

    def has(self, type: str, number: int = 1) -> bool:
        return [one["type"] for one in self.read].count(type) == number


class Model:
    """Answers `/responses` with a message that never ends; counts its deltas."""

    def __init__(self) -> None:
        self.deltas = 0
        self.is_cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        item = {"type": "message", "role": "assistant", "content": []}
        await _send(send, {"type": "response.output_item.added", "item": item})
        try:
            while True:
                await _send(send, {"type": "response.output_text.delta", "delta": "x"})
                self.deltas += 1
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


async def _send(send: Send, event: dict[str, Any]) -> None:
    data = f"data: {json.dumps(event)}\n\n".encode()
    await send({"type": "http.response.body", "body": data, "more_body": True})


class SpeakingModel:
    """Answers `/responses` with one sentence, and with the second once the first is `heard`."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/v1/audio/speech":
            await send({"type": "http.response.body", "body": b"\0\1" * 2400, "more_body": False})
            return
        item = {"type": "message", "role": "assistant", "content": []}
        await _send(send, {"type": "response.output_item.added", "item": item})
        await _send(send, {"type": "response.output_text.delta", "delta": "The first one. "})
        await self.heard.wait()
        await _send(send, {"type": "response.output_text.delta", "delta": "The second one."})
        await _send(send, {"type": "response.output_text.done"})
        await _send(send, {"type": "response.output_item.done", "item": item})
        await _send(send, {"type": "response.completed", "response": {}})


class FailingModel:
    """Answers `/responses` with a sentence, and fails while it is read aloud; neither answer
    ends."""

    def __init__(self) -> None:
        self.speaks = asyncio.Event()
        self.is_silent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/v1/audio/speech":
            self.speaks.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.is_silent = True
        item = {"type": "message", "role": "assistant", "content": []}
        await _send(send, {"type": "response.output_item.added", "item": item})
        await _send(send, {"type": "response.output_text.delta", "delta": "The first one. And"})
        await self.speaks.wait()
        error = {"code": "server_error", "message": "It failed."}
        await _send(send, {"type": "response.failed", "response": {"error": error}})
        await asyncio.Event().wait()


class HearingModel:
    """Hears `said` in the turns, in this order, each once `hears` lets it. The first `short`
    answers end once `ends` is set, and the others never."""

    def __init__(self, *said: str, short: int = 0) -> None:
        self._said = list(said)
        self._short = short
        self.hears = asyncio.Semaphore(0)
        self.ends = asyncio.Event()
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == "/v1/audio/transcriptions":
            await self.hears.acquire()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await _send(send, {"type": "transcript.text.done", "text": self._said.pop(0)})
            return
        self.asked.append(json.loads(body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        item = {"type": "message", "role": "assistant", "content": []}
        await _send(send, {"type": "response.output_item.added", "item": item})
        if len(self.asked) > self._short:
            await asyncio.Event().wait()
        await self.ends.wait()
        await _send(send, {"type": "response.output_item.done", "item": item})
        await _send(send, {"type": "response.completed", "response": {}})


def audio(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}


def spoken_turn() -> dict[str, Any]:
    """Half a second of noise, which the detector takes for speech, and a second of silence."""
    return audio(random.Random(1).randbytes(24_000) + bytes(48_000))


@contextlib.asynccontextmanager
async def running(one: RealtimeSession) -> AsyncIterator[asyncio.Task[bool]]:
    task = asyncio.create_task(one.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def session(
    client: WaitingClient,
    model: ASGIApp,
    *,
    duration_s: float = 60,
    voiceless_reason: str | None = "x",
    transcriber: str | None = None,
    detects_turns: bool = False,
) -> RealtimeSession:
    capabilities = Capabilities(
        voiceless_reason=voiceless_reason,
        transcription_model=transcriber,
        detects_turns=detects_turns,
    )
    return RealtimeSession(
        client,
        SessionConfig.default("m", capabilities),
        SessionRequests(model, lambda: None),
        Validators(load_document()),
        BodyLimits(),
        duration_s=duration_s,
        responses_limit=2,
        input_limit_s=10,
        check_images=AsyncMock(),
    )


async def test_a_session_ends_when_its_time_is_over():
    client = WaitingClient()

    is_left = await session(client, Model(), duration_s=0.01).run()

    assert not is_left
    assert [one["type"] for one in client.read] == ["session.created"]


async def test_a_session_ends_though_its_client_does_not_read_the_first_event():
    client = WaitingClient()
    client.reads.clear()

    async with asyncio.timeout(20):
        is_left = await session(client, Model(), duration_s=0.01).run()

    assert not is_left
    assert client.read == []


async def test_a_session_is_freed_without_the_collector_while_its_model_answers(request):
    client, model = WaitingClient({"type": "response.create"}), Model()
    held = session(client, model, duration_s=0.2)
    freed = weakref.ref(held)
    request.addfinalizer(gc.enable)
    gc.disable()

    assert not await held.run()
    del held
    await comes_true(lambda: freed() is None, within_s=5)

    assert model.deltas > 0
    assert freed() is None


async def test_a_model_waits_for_a_client_that_does_not_read():
    client, model = WaitingClient({"type": "response.create"}), Model()
    running = asyncio.create_task(session(client, model).run())
    assert await comes_true(lambda: len(client.read) > 5, within_s=20)
    client.reads.clear()
    sent = -1
    while sent != model.deltas:  # until the model is held back
        sent = model.deltas
        for _ in range(100):
            await asyncio.sleep(0)
    read = len(client.read)
    client.reads.set()
    assert await comes_true(lambda: len(client.read) > read + 100, within_s=20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert sent - read < 40
    assert model.is_cancelled


async def test_a_response_is_cancelled_while_its_client_is_slow():
    client = WaitingClient({"type": "response.create"}, {"type": "response.cancel"})
    running = asyncio.create_task(session(client, Model()).run())
    assert await comes_true(
        lambda: bool(client.read) and client.read[-1]["type"] == "response.done", within_s=20
    )
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert client.read[-1]["response"]["status"] == "cancelled"


async def test_the_first_sentence_is_heard_before_the_second_is_written():
    client, model = WaitingClient({"type": "response.create"}), SpeakingModel()
    running = asyncio.create_task(session(client, model, voiceless_reason=None).run())

    def has(type: str, number: int) -> bool:
        return [one["type"] for one in client.read].count(type) == number

    assert await comes_true(lambda: has("response.output_audio.delta", 1), within_s=20)
    model.heard.set()
    assert await comes_true(lambda: has("response.done", 1), within_s=20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert has("response.output_audio.delta", 2)


async def test_a_response_that_fails_is_not_read_on():
    client, model = WaitingClient({"type": "response.create"}), FailingModel()
    async with running(session(client, model, voiceless_reason=None)):
        assert await comes_true(lambda: client.has("error"), within_s=20)
        assert await comes_true(lambda: model.is_silent, within_s=20)

    assert client.has("response.output_item.done")


@pytest.fixture
def detector() -> None:
    if find_spec("webrtcvad") is None:
        missing("the extra is not installed: pip install 'llm-backend[realtime]'")


def test_a_zero_and_a_false_of_a_session_reach_the_request():
    capabilities = Capabilities(voiceless_reason="x", transcription_model=None, detects_turns=False)
    fields = {"type": "realtime", "temperature": 0, "parallel_tool_calls": False, "prompt": None}
    body = SessionConfig.default("m", capabilities).apply(fields).request_body([])

    assert (body["temperature"], body["parallel_tool_calls"]) == (0, False)
    assert not {"prompt", "instructions"} & set(body)


async def test_audio_that_is_no_base64_is_an_error_event():
    part = {"type": "input_audio", "audio": "é"}
    item = {"type": "message", "role": "user", "content": [part]}
    client = WaitingClient(
        {"type": "input_audio_buffer.append", "audio": "é"},
        {"type": "conversation.item.create", "item": item},
        {"type": "input_audio_buffer.clear"},
    )
    async with running(session(client, Model(), transcriber="w")):
        assert await comes_true(lambda: client.has("input_audio_buffer.cleared"), within_s=20)

    errors = [one["error"]["param"] for one in client.read if one["type"] == "error"]
    assert errors == ["audio", "item.content[0].audio"]


async def test_a_whole_number_may_be_written_with_a_point(detector):
    turns = {"type": "server_vad", "prefix_padding_ms": 300.0, "silence_duration_ms": 500.0}
    fields = {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}
    client, model = WaitingClient({"type": "response.create"}), SpeakingModel()
    model.heard.set()
    speaking = session(client, model, voiceless_reason=None, transcriber="w", detects_turns=True)
    async with running(speaking):
        assert await comes_true(lambda: client.has("response.done"), within_s=20)
        item_id = client.read[-1]["response"]["output"][0]["id"]
        client.say(
            {"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0.0,
             "audio_end_ms": 20.0},
            {"type": "session.update", "session": fields},
            audio(bytes(48_000)),
            {"type": "input_audio_buffer.clear"},
        )  # fmt: skip
        assert await comes_true(lambda: client.has("input_audio_buffer.cleared"), within_s=20)

    assert client.has("conversation.item.truncated")
    assert not [one for one in client.read if one["type"] == "error"]


async def test_a_bug_is_an_error_event_and_the_session_goes_on(monkeypatch):
    monkeypatch.setattr(InputAudio, "turn", lambda *_: 1 / 0)
    client = WaitingClient(
        {"type": "input_audio_buffer.commit", "event_id": "e"},
        {"type": "input_audio_buffer.clear"},
    )
    async with running(session(client, Model())):
        assert await comes_true(lambda: client.has("input_audio_buffer.cleared"), within_s=20)

    (error,) = [one["error"] for one in client.read if one["type"] == "error"]
    assert (error["type"], error["event_id"]) == ("server_error", "e")


async def test_a_response_is_cancelled_before_its_client_has_read_that_it_began(detector):
    heard = "conversation.item.input_audio_transcription.completed"
    client, model = WaitingClient(spoken_turn(), reads_until=heard), HearingModel("a")
    model.hears.release()
    async with running(session(client, model, transcriber="w", detects_turns=True)) as task:
        assert await comes_true(lambda: client.has(heard), within_s=20)
        client.say({"type": "response.cancel"})
        for _ in range(100):
            await asyncio.sleep(0)
        client.reads.set()
        assert await comes_true(lambda: task.done() or client.has("response.done"), within_s=20)

    assert client.read[-1]["response"]["status"] == "cancelled"


COMMITTED = "input_audio_buffer.committed"


def last_text(body: dict[str, Any]) -> str:
    text: str = body["input"][-1]["content"][0]["text"]
    return text


@pytest.mark.parametrize("second", ["b", ""])
async def test_quick_turns_are_answered_once_all_are_transcribed(detector, second):
    client, model = WaitingClient(spoken_turn(), spoken_turn()), HearingModel("a", second)
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        assert await comes_true(lambda: client.has(COMMITTED, 2), within_s=20)
        for _ in range(2):
            model.hears.release()
        assert await comes_true(lambda: bool(model.asked), within_s=20)

    assert [last_text(one) for one in model.asked] == [second or "a"]
    assert client.has("error", 0)


async def test_a_turn_that_interrupts_nothing_is_answered_after_the_answer_in_progress(detector):
    turns = {"type": "server_vad", "interrupt_response": False}
    fields = {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}
    client = WaitingClient({"type": "session.update", "session": fields}, spoken_turn())
    model = HearingModel("a", "b", short=1)
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        model.hears.release()
        assert await comes_true(lambda: bool(model.asked), within_s=20)
        client.say(spoken_turn())
        model.hears.release()
        heard = "conversation.item.input_audio_transcription.completed"
        assert await comes_true(lambda: client.has(heard, 2), within_s=20)
        model.ends.set()
        assert await comes_true(lambda: len(model.asked) == 2, within_s=20)

    assert [last_text(one) for one in model.asked] == ["a", "b"]
    assert client.has("error", 0)


async def test_a_turn_interrupts_the_answer_in_progress_and_is_answered(detector):
    client, model = WaitingClient(spoken_turn()), HearingModel("a", "b")
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        model.hears.release()
        assert await comes_true(lambda: client.has("response.created"), within_s=20)
        assert await comes_true(lambda: bool(model.asked), within_s=20)
        client.say(spoken_turn())
        model.hears.release()
        assert await comes_true(lambda: client.has("response.done"), within_s=20)
        assert await comes_true(lambda: len(model.asked) == 2, within_s=20)
        model.ends.set()

    (done, *_) = [one["response"] for one in client.read if one["type"] == "response.done"]
    assert (done["status"], done["status_details"]) == (
        "cancelled", {"type": "cancelled", "reason": "turn_detected"},
    )  # fmt: skip
    assert [last_text(one) for one in model.asked] == ["a", "b"]
    assert client.has("error", 0)


def hearing(
    client: WaitingClient, model: HearingModel, conversation: Conversation, answer: Action
) -> InputTurns:
    capabilities = Capabilities(voiceless_reason="x", transcription_model="w", detects_turns=False)
    return InputTurns(
        SessionConfig.default("m", capabilities),
        conversation,
        SessionRequests(model, lambda: None),
        EventSender(client),
        limit_s=10,
        turns_limit=2,
        interrupt=answer,
        answer=answer,
        can_answer=lambda: True,
    )


async def test_audio_stays_in_the_buffer_while_the_conversation_is_full():
    conversation, client = Conversation(limit_bytes=600, nodes_limit=100), WaitingClient()
    conversation.add({"id": "a", "type": "message", "content": [{"text": "x" * 500}]})
    model = HearingModel("b")
    model.hears.release()
    one = hearing(client, model, conversation, answer=asyncio.Event().wait)
    await one.append(audio(bytes(48_000)))
    with pytest.raises(TooLarge):
        await one.commit({})
    conversation.delete("a")
    await one.commit({})
    await one.wait()

    assert client.has(COMMITTED)
    assert [one["content"][0]["transcript"] for one in conversation] == ["b"]


async def test_a_client_that_has_left_gets_no_error_of_its_turn():
    async def refuse() -> None:
        client.is_gone = True
        raise ServiceUnavailable("Not now.")

    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    client, model = WaitingClient(), HearingModel("b")
    model.hears.release()
    one = hearing(client, model, Conversation(limit_bytes=600, nodes_limit=100), answer=refuse)
    item = {"id": "a", "type": "message", "content": [{"type": "input_audio"}]}
    one.transcribe_item(item, 0, Turn(wav=b"", duration_s=1), answers=True)
    await one.wait()
    await asyncio.sleep(0)  # the task is forgotten
    gc.collect()

    assert client.is_gone
    assert not unhandled


async def test_a_turn_that_a_response_reads_is_not_answered_once_more(detector):
    update = {"type": "session.update", "session": {"type": "realtime"}}
    client, model = WaitingClient(spoken_turn()), HearingModel("a", short=2)
    model.ends.set()
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        assert await comes_true(lambda: client.has(COMMITTED), within_s=20)
        client.say({"type": "response.create"})
        assert await comes_true(lambda: client.has("response.created"), within_s=20)
        model.hears.release()
        assert await comes_true(lambda: client.has("response.done"), within_s=20)
        client.say(update, update)  # each has due turns answered
        assert await comes_true(lambda: client.has("session.updated", 2), within_s=20)

    assert [last_text(one) for one in model.asked] == ["a"]
    assert client.has("response.created")


async def test_commit_without_a_transcription_model_keeps_the_audio_in_the_buffer():
    def transcribed_by(model: dict[str, str] | None) -> dict[str, Any]:
        fields = {"type": "realtime", "audio": {"input": {"transcription": model}}}
        return {"type": "session.update", "session": fields}

    commit = {"type": "input_audio_buffer.commit"}
    client, model = WaitingClient(transcribed_by({"model": "w"})), HearingModel("a")
    client.say(audio(bytes(9600)), transcribed_by(None), commit)
    model.hears.release()
    async with running(session(client, model)):
        assert await comes_true(lambda: client.has("error"), within_s=20)
        assert not client.has(COMMITTED)
        assert not client.has("conversation.item.added")
        client.say(transcribed_by({"model": "w"}), commit)
        assert await comes_true(lambda: client.has(HEARD), within_s=20)

    (error,) = [one["error"] for one in client.read if one["type"] == "error"]
    assert error["param"] == "session.audio.input.transcription.model"


async def test_turns_beyond_the_limit_wait_in_the_buffer_and_are_an_error_event():
    off = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    commit = {"type": "input_audio_buffer.commit"}
    part = {"type": "input_audio", "audio": audio(bytes(9600))["audio"]}
    item = {"type": "message", "role": "user", "content": [part, part]}
    client = WaitingClient({"type": "session.update", "session": off})
    client.say(
        *[audio(bytes(9600)), commit] * 3, {"type": "conversation.item.create", "item": item}
    )
    model = HearingModel("a", "b", "c")
    async with running(session(client, model, transcriber="w")):
        assert await comes_true(lambda: client.has("error", 2), within_s=20)
        model.hears.release()
        heard = "conversation.item.input_audio_transcription.completed"
        assert await comes_true(lambda: client.has(heard), within_s=20)
        client.say(commit)
        assert await comes_true(lambda: client.has(COMMITTED, 3), within_s=20)

    errors = [one["error"] for one in client.read if one["type"] == "error"]
    assert {one["code"] for one in errors} == {"websocket_stream_limit_reached"}
    assert client.has("conversation.item.added", 3)


HEARD = "conversation.item.input_audio_transcription.completed"
NOT_HEARD = "conversation.item.input_audio_transcription.failed"


async def test_detected_turns_beyond_the_limit_wait_and_are_all_heard(detector):
    three = random.Random(1).randbytes(24_000) + bytes(48_000)
    client, model = WaitingClient(audio(three * 3)), HearingModel("a", "b", "c")
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        assert await comes_true(lambda: client.has(COMMITTED, 3), within_s=20)
        for _ in range(3):
            model.hears.release()
        assert await comes_true(lambda: bool(model.asked), within_s=20)

    assert client.has(HEARD, 3)
    assert client.has("error", 0)
    assert [one["content"][0]["text"] for one in model.asked[0]["input"]] == ["a", "b", "c"]


async def test_a_detected_turn_that_cannot_wait_fails_by_its_id_and_the_others_are_answered(
    detector,
):
    turns, said = 20, "abcdefghijklmnopqrst"
    client, model = WaitingClient(*[spoken_turn()] * turns), HearingModel(*said)
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        assert await comes_true(lambda: client.has(COMMITTED, turns), within_s=20)
        for _ in range(turns):
            model.hears.release()
        assert await comes_true(lambda: bool(model.asked), within_s=20)

    ids = {
        type: [one["item_id"] for one in client.read if one["type"] == type]
        for type in (COMMITTED, HEARD, NOT_HEARD)
    }
    failed = [one["error"] for one in client.read if one["type"] == NOT_HEARD]
    assert {one["code"] for one in failed} == {"websocket_stream_limit_reached"}
    assert sorted(ids[HEARD] + ids[NOT_HEARD]) == sorted(ids[COMMITTED])
    assert ids[NOT_HEARD] == [id for id in ids[COMMITTED] if id not in ids[HEARD]]
    assert len(ids[HEARD]) > 4


async def test_a_turn_goes_on_when_its_detection_changes(detector):
    turns = {"type": "server_vad", "silence_duration_ms": 200}
    fields = {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}
    speech = random.Random(1).randbytes(24_000)
    client, model = WaitingClient(audio(speech)), HearingModel("a")
    model.hears.release()
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        client.say({"type": "session.update", "session": fields}, audio(bytes(48_000)))
        assert await comes_true(lambda: bool(model.asked), within_s=20)

    (heard,) = [one for one in client.read if one["type"] == HEARD]
    assert heard["usage"]["seconds"] >= 0.5
    assert client.has("input_audio_buffer.speech_started")


async def test_a_turn_whose_transcription_is_no_transcript_fails():
    async def model(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await _send(send, {"type": "transcript.text.done"})

    client = WaitingClient(audio(bytes(9600)), {"type": "input_audio_buffer.commit"})
    async with running(session(client, model, transcriber="w")):
        assert await comes_true(lambda: client.has(NOT_HEARD), within_s=20)

    assert client.read[-1]["error"]["type"] == "server_error"


@pytest.mark.parametrize("is_bug", [False, True])
async def test_a_turn_that_fails_keeps_no_later_one_away(detector, monkeypatch, caplog, is_bug):
    conversation, client = Conversation(limit_bytes=600, nodes_limit=100), WaitingClient()
    if is_bug:
        monkeypatch.setattr(InputAudio, "turn", lambda *_: 1 / 0)
    else:
        conversation.add({"id": "a", "type": "message", "content": [{"text": "x" * 500}]})
    one = hearing(client, HearingModel(), conversation, answer=asyncio.Event().wait)
    turns = {"type": "server_vad", "interrupt_response": False}
    fields = {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}
    capabilities = Capabilities(voiceless_reason="x", transcription_model="w", detects_turns=True)
    one.configure(SessionConfig.default("m", capabilities).apply(fields))
    two = random.Random(1).randbytes(24_000) + bytes(48_000)
    await one.append({**audio(two * 2), "event_id": "e"})

    assert client.has("input_audio_buffer.speech_stopped", 2)
    errors = [one["error"] for one in client.read if one["type"] == "error"]
    kind = "server_error" if is_bug else "invalid_request_error"
    assert [(one["type"], one["event_id"]) for one in errors] == [(kind, "e")] * 2
    logged = [one.message for one in caplog.records if one.levelname == "ERROR"]
    assert logged == ["realtime_turn_failed"] * (2 if is_bug else 0)


async def test_transcripts_count_as_bytes_of_the_conversation():
    conversation = Conversation(limit_bytes=600, nodes_limit=100)
    item: dict[str, Any] = {"id": "a", "type": "message", "content": [{"type": "input_audio"}]}
    conversation.add(item)
    turn = Turn(wav=b"", duration_s=1)
    model, sender = HearingModel("x" * 600), EventSender(WaitingClient())
    model.hears.release()
    requests = SessionRequests(model, lambda: None)
    await TranscribedTurn(
        item, 0, turn, {}, requests, sender, conversation=conversation
    ).transcribe()

    with pytest.raises(TooLarge):
        conversation.add({"id": "b", "type": "message"})


async def test_an_answer_that_fails_once_its_client_has_left_is_no_error(caplog):
    fails = asyncio.Event()

    async def model(scope: Scope, receive: Receive, send: Send) -> None:
        await fails.wait()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        body = b'{"error": {"type": "server_error", "message": "Not now."}}'
        await send({"type": "http.response.body", "body": body})

    client = WaitingClient({"type": "response.create"})
    async with running(session(client, model)):
        assert await comes_true(lambda: client.has("response.created"), within_s=20)
        client.is_gone = True
        fails.set()
        for _ in range(1000):
            await asyncio.sleep(0)

    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == []


@pytest.mark.parametrize("depth", [99, 300])
async def test_an_event_that_is_nested_too_deeply_is_refused_and_changes_nothing(caplog, depth):
    inner = json.loads("[" * depth + "]" * depth)
    tool = {"type": "function", "name": "f", "parameters": {"enum": inner}}
    client = WaitingClient(
        {"type": "session.update", "session": {"type": "realtime", "tools": [tool]}},
        {"type": "session.update", "session": {"type": "realtime", "instructions": "Be brief."}},
    )
    async with running(session(client, Model())):
        assert await comes_true(lambda: client.has("session.updated"), within_s=20)

    assert [one["error"]["message"] for one in client.read if one["type"] == "error"] == [
        "The body is nested deeper than 100 levels."
    ]
    assert client.read[-1]["session"]["tools"] == []
    assert "realtime_event_failed" not in caplog.text


async def test_the_outputs_that_are_deleted_with_their_call_have_events():
    call = {"type": "function_call", "name": "f", "arguments": "{}", "id": "a", "call_id": "c"}
    output = {"type": "function_call_output", "call_id": "c", "output": "x", "id": "b"}
    client = WaitingClient(
        {"type": "conversation.item.create", "item": call},
        {"type": "conversation.item.create", "item": output},
        {"type": "conversation.item.delete", "item_id": "a"},
        {"type": "input_audio_buffer.clear"},
    )
    async with running(session(client, Model())):
        assert await comes_true(lambda: client.has("input_audio_buffer.cleared"), within_s=20)

    deleted = [one for one in client.read if one["type"] == "conversation.item.deleted"]
    assert [one["item_id"] for one in deleted] == ["a", "b"]


async def test_a_response_reads_items_of_the_conversation_by_their_ids():
    def written(text: str, **more: str) -> dict[str, Any]:
        content = [{"type": "input_text", "text": text}]
        return {"type": "message", "role": "user", "content": content, **more}

    def answer_to(id: str) -> dict[str, Any]:
        items = [written("Sum it up."), {"type": "item_reference", "id": id}]
        return {"type": "response.create", "response": {"conversation": "none", "input": items}}

    model = HearingModel()
    client = WaitingClient(
        {"type": "conversation.item.create", "item": written("Hello!", id="one")},
        {"type": "conversation.item.create", "item": written("Left out")},
        answer_to("two"),
        answer_to("one"),
    )
    async with running(session(client, model)):
        assert await comes_true(lambda: bool(model.asked), within_s=20)

    (error,) = [one["error"] for one in client.read if one["type"] == "error"]
    assert (error["param"], error["code"]) == ("response.input[1].id", "item_not_found")
    texts = [item["content"][0]["text"] for item in model.asked[0]["input"]]
    assert texts == ["Sum it up.", "Hello!"]


async def test_audio_in_the_input_of_a_response_is_refused_unless_it_has_a_transcript():
    def answer_to(**part: str) -> dict[str, Any]:
        content = [{"type": "input_audio", "audio": "AAAA", **part}]
        items = [{"type": "message", "role": "user", "content": content}]
        return {"type": "response.create", "response": {"conversation": "none", "input": items}}

    model = HearingModel()
    client = WaitingClient(answer_to(), answer_to(transcript="Hello!"))
    async with running(session(client, model, transcriber="hello")):
        assert await comes_true(lambda: bool(model.asked), within_s=20)

    (error,) = [one["error"] for one in client.read if one["type"] == "error"]
    assert error["param"] == "response.input[0].content[0].audio"
    assert model.asked[0]["input"][0]["content"] == [{"type": "input_text", "text": "Hello!"}]


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "warm"), ("temperature", 9), ("temperature", -1), ("max_output_tokens", 3.0)],
)
async def test_a_number_that_no_response_may_have_is_refused_in_a_session(field, value):
    client = WaitingClient(
        {"type": "session.update", "session": {"type": "realtime", field: value}}
    )
    async with running(session(client, Model())):
        assert await comes_true(lambda: len(client.read) == 2, within_s=20)

    assert client.read[1]["type"] == "error"
    assert client.read[1]["error"]["param"] == f"session.{field}"


async def test_temperature_that_no_response_may_have_is_refused_before_it_begins():
    client = WaitingClient({"type": "response.create", "response": {"temperature": 9}})
    async with running(session(client, Model())):
        assert await comes_true(lambda: len(client.read) == 2, within_s=20)

    assert client.read[1]["type"] == "error"
    assert client.read[1]["error"]["param"] == "response.temperature"


async def test_a_turn_begins_after_the_end_of_the_one_before(detector):
    noise = random.Random(1).randbytes(24_000)
    said = audio((noise + bytes(33_600)) * 2)  # half a second, and 0.7 s of silence, twice
    client = WaitingClient(said)
    async with running(session(client, HearingModel(), transcriber="x", detects_turns=True)):
        ended = "input_audio_buffer.speech_stopped"
        assert await comes_true(lambda: client.has(ended, number=2), within_s=20)

    times = [one for one in client.read if "speech_" in one["type"]]
    _, first_end, second_begin, _ = times
    assert second_begin["audio_start_ms"] == first_end["audio_end_ms"]


async def test_an_event_with_a_nul_character_is_refused_and_changes_nothing():
    content = [{"type": "input_text", "text": "Hel\0lo!"}]
    item = {"type": "message", "role": "user", "content": content, "id": "one"}
    client = WaitingClient(
        {"type": "conversation.item.create", "item": item, "event_id": "mine"},
        {"type": "conversation.item.retrieve", "item_id": "one"},
    )
    async with running(session(client, Model())):
        assert await comes_true(lambda: client.has("error", number=2), within_s=20)

    nul, missing = (one["error"] for one in client.read[1:])
    assert (nul["param"], nul["event_id"]) == ("item.content[0].text", "mine")
    assert missing["code"] == "item_not_found"


@pytest.mark.parametrize("ticks", range(6))
async def test_a_turn_and_a_request_are_answered_once_at_the_same_time(detector, ticks):
    class Requesting(WaitingClient):
        async def send(self, message: str) -> None:
            await super().send(message)
            if self.read[-1]["type"].endswith("transcription.completed"):
                later.append(asyncio.create_task(self.request()))

        async def request(self) -> None:
            for _ in range(ticks):
                await asyncio.sleep(0)
            self.say({"type": "response.create", "event_id": "mine"}, {"type": "x"})

    def errors() -> list[dict[str, Any]]:
        return [one["error"] for one in client.read if one["type"] == "error"]

    later: list[asyncio.Task[None]] = []
    client, model = Requesting(spoken_turn()), HearingModel("One")
    model.hears.release()
    async with running(session(client, model, transcriber="hello", detects_turns=True)):
        assert await comes_true(lambda: "type" in [one["param"] for one in errors()], within_s=20)
        assert await comes_true(lambda: client.has("response.created"), within_s=20)

    refused = [one["event_id"] for one in errors() if one["param"] != "type"]
    assert set(refused) <= {"mine"}  # none of the server's own answer


@pytest.mark.parametrize("ticks", range(12))
async def test_a_response_that_is_cancelled_as_its_voice_fails_has_an_end(ticks):
    class FailingVoice(SpeakingModel):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] != "/v1/audio/speech":
                await super().__call__(scope, receive, send)
                return
            later.append(asyncio.create_task(cancel()))
            await send({"type": "http.response.start", "status": 500, "headers": []})

    async def cancel() -> None:
        for _ in range(ticks):
            await asyncio.sleep(0)
        client.say({"type": "response.cancel"})

    later: list[asyncio.Task[None]] = []
    client, model = WaitingClient({"type": "response.create"}), FailingVoice()
    model.heard.set()
    async with running(session(client, model, voiceless_reason=None)):
        assert await comes_true(lambda: client.has("response.done"), within_s=20)

    (done,) = [one["response"] for one in client.read if one["type"] == "response.done"]
    assert done["status"] in ("failed", "cancelled")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"name": "get weather"}, "session.tools[1].name"),
        ({"name": "f"}, "session.tools[1].name"),  # the name of the first
        ({"parameters": {"type": "string"}}, "session.tools[1].parameters.type"),
        ({"parameters": {"properties": 3}}, "session.tools[1].parameters.properties"),
    ],
)
async def test_a_function_that_no_response_may_have_is_refused_in_a_session(changes, param):
    tools = [{"type": "function", "name": "f"}, {"type": "function", "name": "g", **changes}]
    client = WaitingClient(
        {"type": "session.update", "session": {"type": "realtime", "tools": tools}}
    )
    async with running(session(client, Model())):
        assert await comes_true(lambda: len(client.read) == 2, within_s=20)

    assert client.read[1]["type"] == "error"
    assert client.read[1]["error"]["param"] == param


@pytest.mark.parametrize(
    ("changes", "choice"),
    [({"tools": []}, "auto"), ({}, "required"), ({"tools": [], "tool_choice": "none"}, "none")],
)
def test_a_response_without_the_tools_of_its_session_needs_to_call_none(changes, choice):
    tools = [{"type": "function", "name": "f"}]
    config = SessionConfig.default("m", Capabilities())
    config = config.apply({"type": "realtime", "tools": tools, "tool_choice": "required"})

    body = config.for_response(changes).request_body([])

    assert body["tool_choice"] == choice


@pytest.mark.parametrize("is_large", [True, False])
async def test_a_large_conversation_is_translated_beside_the_event_loop(monkeypatch, is_large):
    def translate(items: Any) -> list[dict[str, Any]]:
        threads.append(threading.current_thread())
        return model_input(items)

    threads: list[threading.Thread] = []
    monkeypatch.setattr("llm_backend.controllers.realtime.response.model_input", translate)
    content = [{"type": "input_text", "text": "x"}] * (3000 if is_large else 3)
    item = {"type": "message", "role": "user", "content": content}
    client = WaitingClient(
        {"type": "conversation.item.create", "item": item}, {"type": "response.create"}
    )
    async with running(session(client, HearingModel())):
        assert await comes_true(lambda: client.has("response.output_item.added"), within_s=20)

    (thread,) = threads
    assert (thread is not threading.main_thread()) is is_large


async def test_a_session_is_freed_without_the_collector_while_it_speaks(request):
    client = WaitingClient({"type": "response.create"})
    held = session(client, SpeakingModel(), voiceless_reason=None)
    freed = weakref.ref(held)
    request.addfinalizer(gc.enable)
    gc.disable()

    async with running(held):
        del held
        assert await comes_true(lambda: client.has("response.output_audio.delta"), within_s=20)

    assert await comes_true(lambda: freed() is None, within_s=5)


async def test_turn_is_answered_once_a_response_beside_the_conversation_has_ended(detector):
    aside = {"type": "response.create", "response": {"conversation": "none", "input": []}}
    client, model = WaitingClient(aside, aside), HearingModel("a", short=2)
    async with running(session(client, model, transcriber="w", detects_turns=True)):
        assert await comes_true(lambda: len(model.asked) == 2, within_s=20)
        client.say(spoken_turn())
        model.hears.release()
        heard = "conversation.item.input_audio_transcription.completed"
        assert await comes_true(lambda: client.has(heard), within_s=20)
        model.ends.set()
        assert await comes_true(lambda: len(model.asked) == 3, within_s=20)

    assert last_text(model.asked[-1]) == "a"
    assert client.has("error", 0)


async def test_session_is_freed_without_the_collector_though_its_response_has_not_begun(request):
    class LeavingClient(WaitingClient):
        async def messages(self) -> AsyncGenerator[str, None]:
            yield json.dumps({"type": "response.create"})

    held = session(LeavingClient(), Model())
    freed = weakref.ref(held)
    request.addfinalizer(gc.enable)
    gc.disable()

    assert await held.run()
    del held

    assert await comes_true(lambda: freed() is None, within_s=5)
