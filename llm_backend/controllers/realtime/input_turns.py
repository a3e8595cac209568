"""Turns of the user: input audio becomes items of the conversation, which are transcribed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.controllers.realtime.client_events import client_event_id
from llm_backend.controllers.realtime.conversation import Conversation, new_item_id
from llm_backend.controllers.realtime.event_sender import EventSender, item_events
from llm_backend.controllers.realtime.input_audio import InputAudio, Turn, decode_turn
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.controllers.realtime.session_requests import SessionRequests
from llm_backend.controllers.realtime.transcribed_turn import TranscribedTurn
from llm_backend.controllers.realtime.turn_detection import TurnChange
from llm_backend.errors import ApiError, ClientGone, Internal, RateLimited
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import offload

log = logging.getLogger(__name__)

_FAILED = "The server failed at this turn; its log says why."

Action = Callable[[], Awaitable[None]]


class InputTurns:
    """Handles the events of the input buffer, which holds at most `limit_s` seconds. At most
    `turns_limit` turns are transcribed at the same time. Further detected turns wait, up to
    `limit_s` seconds of audio. `interrupt` is called when a detected turn begins, if the
    configuration says so. `answer` is called when the user is silent and all turns are transcribed,
    if `can_answer` returns True."""

    def __init__(
        self,
        config: SessionConfig,
        conversation: Conversation,
        requests: SessionRequests,
        sender: EventSender,
        *,
        limit_s: int,
        turns_limit: int,
        interrupt: Action,
        answer: Action,
        can_answer: Callable[[], bool],
    ) -> None:
        self._config = config
        self._conversation = conversation
        self._requests = requests
        self._sender = sender
        self._limit_s = limit_s
        self._turns_limit = turns_limit
        self._interrupt = interrupt
        self._answer = answer
        self._can_answer = can_answer
        self._input = InputAudio(config.input_format, config.turns, limit_s=limit_s)
        self._turn_id = new_item_id()  # of the next turn
        self._is_speaking = False  # True while the user speaks, in a turn that has not ended
        self._is_answer_due = False  # True if transcribed turns wait for an answer
        self._tasks = BackgroundTasks()
        self._permits = asyncio.Semaphore(turns_limit)
        self._waiting_s = 0.0  # audio of turns that wait for a permit
        self._to_answer: set[TranscribedTurn] = set()  # turns to be answered once transcribed

    def configure(self, config: SessionConfig) -> None:
        """Applies a change of the configuration. Raises `InvalidRequest`."""
        self._input.configure(config.input_format, config.turns)
        self._config = config
        self._is_speaking = self._is_speaking and self._input.is_speech

    async def append(self, event: JsonMapping) -> None:
        """Handles `input_audio_buffer.append`; a turn that fails does not stop later ones."""
        _ = self._config.transcription  # raises without a model, before audio is buffered
        for change in await offload(self._input.append, event["audio"]):
            try:
                await (self._begin_turn if change.kind == "started" else self._end_turn)(change)
            except ClientGone:
                raise
            except ApiError as error:
                await self._sender.send_error(error, client_event_id(event))
            except Exception:  # as in the error renderer: a bug ends only its own turn
                log.exception("realtime_turn_failed")
                await self._sender.send_error(Internal(_FAILED), client_event_id(event))

    async def commit(self, _event: JsonMapping) -> None:
        """Handles `input_audio_buffer.commit`."""
        self._check_capacity()
        await self._commit(None, answers=False)
        self._is_speaking = False

    async def clear(self, _event: JsonMapping) -> None:
        """Handles `input_audio_buffer.clear`."""
        self._input.clear()
        self._is_speaking = False
        await self._sender.send({"type": "input_audio_buffer.cleared"})
        await self.answer_if_due()

    def pop_turns(self, item: JsonObject) -> dict[int, Turn]:
        """Removes the audio from the parts of an item, and returns the turns to be transcribed by
        index of their part. Raises `InvalidRequest` and `TooLarge`."""
        turns = {}
        parts = item["content"] if item["type"] == "message" else ()
        for index, part in enumerate(parts):
            encoded = part.pop("audio", None) if part["type"] == "input_audio" else None
            if encoded and not part.get("transcript"):
                _ = self._config.transcription  # raises without a model
                where = f"item.content[{index}].audio"
                turns[index] = decode_turn(
                    encoded, self._config.input_format, limit_s=self._limit_s, where=where
                )
        if turns:
            self._check_capacity(len(turns))
        return turns

    def transcribe_item(
        self, item: JsonObject, content_index: int, turn: Turn, *, answers: bool
    ) -> None:
        """Transcribes a turn in a task, once a permit is free; with `answers` the model then
        answers it. A turn fails with an event if the turns that wait have too much audio."""
        transcribed = TranscribedTurn(
            item,
            content_index,
            turn,
            self._config.transcription,
            self._requests,
            self._sender,
            conversation=self._conversation,
        )
        waiting_s = turn.duration_s if len(self._tasks) >= self._turns_limit else 0
        if waiting_s and self._waiting_s + waiting_s > self._limit_s:
            self._tasks.start(self._refuse(transcribed))
        else:
            self._waiting_s += waiting_s
            if answers:
                self._to_answer.add(transcribed)
            self._tasks.start(self._transcribe(transcribed, waiting_s))

    def cancel_pending_answers(self) -> None:
        """Cancels automatic answers to the turns so far: a requested response answers them."""
        self._to_answer.clear()
        self._is_answer_due = False

    async def answer_if_due(self) -> None:
        """Answers the detected turns, unless speech, a transcription or an answer is in progress,
        or as many responses as there may be. This is called again at the end of each of these."""
        is_busy = self._is_speaking or self._tasks.are_others_running
        if self._is_answer_due and not is_busy and self._can_answer():
            self._is_answer_due = False
            try:
                await self._answer()
            except ApiError as error:
                with suppress(ClientGone):
                    await self._sender.send_error(error)

    async def wait(self) -> None:
        """Returns when all turns are transcribed."""
        await self._tasks.wait_others()

    async def aclose(self) -> None:
        """Cancels all transcriptions."""
        self._is_answer_due = False
        await self._tasks.cancel()

    async def _begin_turn(self, change: TurnChange) -> None:
        self._is_speaking = True
        self._input.drop_before(change.at_ms)
        fields = {"audio_start_ms": self._input.start_ms, "item_id": self._turn_id}
        await self._sender.send({"type": "input_audio_buffer.speech_started", **fields})
        if (self._config.turns or {}).get("interrupt_response"):
            await self._interrupt()

    async def _end_turn(self, change: TurnChange) -> None:
        fields = {"audio_end_ms": change.at_ms, "item_id": self._turn_id}
        await self._sender.send({"type": "input_audio_buffer.speech_stopped", **fields})
        answers = bool((self._config.turns or {}).get("create_response"))
        is_answered = answers and not self._config.is_transcription
        try:
            await self._commit(change.at_ms, answers=is_answered)
        finally:
            self._is_speaking = False

    async def _commit(self, end_ms: int | None, *, answers: bool) -> None:
        turn = self._input.turn(end_ms)
        _ = self._config.transcription  # raises without a model, before an item is added
        item: JsonObject = {
            "id": self._turn_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio"}],
        }
        self._turn_id = new_item_id()
        previous = self._conversation.add(item)  # raises while the audio is still in the buffer
        self._input.remove_turn(end_ms)
        ids = {"item_id": item["id"], "previous_item_id": previous}
        committed = {"type": "input_audio_buffer.committed", **ids}
        await self._sender.send(committed, *item_events(item, previous))
        self.transcribe_item(item, 0, turn, answers=answers)

    def _check_capacity(self, turns: int = 1) -> None:
        """Raises `RateLimited` if these turns are more than may be transcribed concurrently."""
        if len(self._tasks) + turns > self._turns_limit:
            raise self._too_many()

    def _too_many(self) -> RateLimited:
        return RateLimited(
            f"The session transcribes at most {self._turns_limit} turns at once; wait for one.",
            code="websocket_stream_limit_reached",
        )

    async def _transcribe(self, transcribed: TranscribedTurn, waiting_s: float) -> None:
        try:
            async with self._permits:
                self._waiting_s -= waiting_s
                has_words = await transcribed.transcribe()
            if has_words and transcribed in self._to_answer:
                self._is_answer_due = True
        except ClientGone:
            return
        except Exception:  # as in the error renderer: a bug must not look like silence
            log.exception("realtime_turn_failed")
            with suppress(ClientGone):
                await transcribed.fail(Internal(_FAILED))
        finally:
            self._to_answer.discard(transcribed)
        await self.answer_if_due()

    async def _refuse(self, transcribed: TranscribedTurn) -> None:
        try:
            await transcribed.fail(self._too_many())
        except ClientGone:
            return
        await self.answer_if_due()
