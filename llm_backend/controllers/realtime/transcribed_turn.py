"""Transcription of a user's turn in a realtime session."""

import uuid
from contextlib import aclosing
from typing import Any

import orjson

from llm_backend.controllers.realtime.conversation import Conversation
from llm_backend.controllers.realtime.event_sender import EventSender
from llm_backend.controllers.realtime.input_audio import Turn
from llm_backend.controllers.realtime.session_requests import InternalRequestFailed, SessionRequests
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, EngineUnavailable
from llm_backend.json_types import JsonMapping, JsonObject


class TranscribedTurn:
    """Transcribes the audio of an item, sends the events of the transcript and adds it to the
    item, which is one of `conversation`. `fields` are those of a request to
    `/audio/transcriptions`."""

    def __init__(
        self,
        item: JsonObject,
        content_index: int,
        turn: Turn,
        fields: JsonMapping,
        requests: SessionRequests,
        sender: EventSender,
        *,
        conversation: Conversation,
    ) -> None:
        self._item = item
        self._content_index = content_index
        self._turn = turn
        self._fields = fields
        self._requests = requests
        self._sender = sender
        self._conversation = conversation

    async def transcribe(self) -> bool:
        """Returns True if the transcript has text; failures are sent as events."""
        try:
            done = await self._answer()
        except InternalRequestFailed as failed:
            await self._send_failure(failed.error)
            return False
        except ApiError as error:
            await self.fail(error)
            return False
        text = str(done["text"]).strip()
        self._item["content"][self._content_index]["transcript"] = text
        self._conversation.update(self._item)
        usage = done.get("usage") or {"type": "duration", "seconds": self._turn.duration_s}
        logprobs = {"logprobs": done["logprobs"]} if "logprobs" in done else {}
        await self._send("completed", transcript=text, usage=usage, **logprobs)
        return bool(text)

    async def fail(self, error: ApiError) -> None:
        """Sends the event of a failed transcription."""
        await self._send_failure(error_body(error)["error"])

    async def _answer(self) -> JsonMapping:
        boundary = uuid.uuid4().hex
        body = form_body({**self._fields, "stream": "true"}, self._turn.wav, boundary)
        content_type = f"multipart/form-data; boundary={boundary}".encode()
        opened = self._requests.open("/audio/transcriptions", body, content_type=content_type)
        async with opened as answer, aclosing(answer.events()) as events:
            async for data in events:
                event: JsonMapping = orjson.loads(data)
                if event.get("error") or event.get("type") == "error":
                    raise InternalRequestFailed(event.get("error") or event)
                if event.get("type") == "transcript.text.done":
                    return event
                if event.get("type") == "transcript.text.delta":
                    fields = {name: event[name] for name in ("delta", "logprobs") if name in event}
                    await self._send("delta", **fields)
        raise EngineUnavailable("The transcription ended before it was complete.")

    async def _send_failure(self, error: JsonMapping) -> None:
        fields = {
            name: error[name] for name in ("type", "code", "message", "param") if error.get(name)
        }
        await self._send("failed", error=fields)

    async def _send(self, kind: str, **fields: Any) -> None:
        type = f"conversation.item.input_audio_transcription.{kind}"
        ids = {"item_id": self._item["id"], "content_index": self._content_index}
        await self._sender.send({"type": type, **ids, **fields})


def form_body(fields: JsonMapping, audio: bytes, boundary: str) -> bytes:
    """Returns a form with these fields, and then the file `file`."""
    head = "".join(
        f'--{boundary}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    disposition = 'content-disposition: form-data; name="file"; filename="turn.wav"'
    file_head = f"--{boundary}\r\n{disposition}\r\ncontent-type: audio/wav\r\n\r\n"
    return (head + file_head).encode() + audio + f"\r\n--{boundary}--\r\n".encode()
