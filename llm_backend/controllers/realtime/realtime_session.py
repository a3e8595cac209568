"""One realtime session with a local model: the client's events in, the document's events out."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

from llm_backend.background_tasks import BackgroundTasks
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.validation import Validators
from llm_backend.controllers.internal_requests import parse_message
from llm_backend.controllers.realtime.client_events import (
    check_event,
    client_event_id,
)
from llm_backend.controllers.realtime.conversation import (
    Conversation,
    ItemSize,
    check_item,
    stored_item,
)
from llm_backend.controllers.realtime.event_sender import Client, EventSender, item_events
from llm_backend.controllers.realtime.input_audio import Turn
from llm_backend.controllers.realtime.input_turns import InputTurns
from llm_backend.controllers.realtime.response import RealtimeResponse
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.controllers.realtime.session_requests import SessionRequests
from llm_backend.errors import (
    ApiError,
    ClientGone,
    Internal,
    InvalidRequest,
    RateLimited,
    UnsupportedField,
)
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import REQUEST_BYTES, add_request_bytes, offload, schedule_memory_trim

log = logging.getLogger(__name__)

_REFERENCE = "item_reference"
_FAILED = "The server failed at this event; its log says why."

Handle = Callable[[JsonMapping], Awaitable[None]]


class RealtimeSession:
    """A session of at most `duration_s` seconds. It has at most `responses_limit` responses in
    progress, and transcribes at most as many turns concurrently. A turn has at most `input_limit_s`
    seconds of audio. `check_images` raises `InvalidRequest` for an item with an image that the
    model cannot see."""

    def __init__(
        self,
        client: Client,
        config: SessionConfig,
        requests: SessionRequests,
        validators: Validators,
        limits: BodyLimits,
        *,
        duration_s: float,
        responses_limit: int,
        input_limit_s: int,
        check_images: Handle,
    ) -> None:
        self._client = client
        self._config = config
        self._requests = requests
        self._validators = validators
        self._limits = limits
        self._check_images = check_images
        self._duration_s = duration_s
        self._responses_limit = responses_limit
        self._id = f"sess_{uuid.uuid4().hex[:24]}"
        self._expires_at = int(time.time() + duration_s)
        self._sender = EventSender(client)
        self._conversation = Conversation(
            limit_bytes=limits.json_bytes, nodes_limit=limits.json_nodes
        )
        self._input_turns = InputTurns(
            config,
            self._conversation,
            requests,
            self._sender,
            limit_s=input_limit_s,
            turns_limit=responses_limit,
            interrupt=self._interrupt,
            answer=self._answer_turn,
            can_answer=self._can_answer,
        )
        self._responses: dict[str, RealtimeResponse] = {}  # those in progress, by id
        self._tasks = BackgroundTasks()
        self._received_bytes = 0
        self._handlers: Mapping[str, Handle] = {
            "session.update": self._update_session,
            "conversation.item.create": self._create_item,
            "conversation.item.retrieve": self._retrieve_item,
            "conversation.item.truncate": self._truncate_item,
            "conversation.item.delete": self._delete_item,
            "input_audio_buffer.append": self._input_turns.append,
            "input_audio_buffer.commit": self._input_turns.commit,
            "input_audio_buffer.clear": self._input_turns.clear,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }

    async def run(self) -> bool:
        """Serves the session until the client disconnects, or returns False when its time ends."""
        try:
            async with asyncio.timeout(self._duration_s):
                await self._send_session("session.created")
                async for message in self._client.messages():
                    await self._handle(message)
        except TimeoutError:
            return False
        finally:
            await self._input_turns.aclose()
            await self._tasks.cancel()
            del self._handlers, self._input_turns  # they refer to this session: a cycle
            REQUEST_BYTES.set(self._received_bytes)
            schedule_memory_trim()  # the session is freed soon
        return True

    async def _handle(self, message: str | bytes) -> None:
        event: JsonObject = {}
        try:
            REQUEST_BYTES.set(len(message))
            self._received_bytes += len(message)
            event = await offload(parse_message, message, self._limits)
            await offload(check_event, event, self._validators)
            await self._handlers[event["type"]](event)
        except ClientGone:
            raise
        except ApiError as error:
            await self._sender.send_error(error, client_event_id(event))
        except Exception:  # as in the error renderer: a bug does not end the session
            log.exception("realtime_event_failed")
            await self._sender.send_error(Internal(_FAILED), client_event_id(event))

    async def _send_session(self, type: str) -> None:
        ids = {"id": self._id, "expires_at": self._expires_at}
        session = {**self._config.public_fields, **ids}
        await self._sender.send({"type": type, "session": session})

    async def _update_session(self, event: JsonMapping) -> None:
        config = await offload(self._config.apply, event["session"])
        self._input_turns.configure(config)
        self._config = config
        await self._send_session("session.updated")
        await self._input_turns.answer_if_due()

    async def _create_item(self, event: JsonMapping) -> None:
        item, turns, size = await offload(self._read_item, event["item"])
        if not self._config.is_transcription:
            await self._check_images(item)
        previous = self._conversation.add(item, event.get("previous_item_id"), size=size)
        await self._sender.send(*item_events(item, previous))
        for index, turn in turns.items():
            self._input_turns.transcribe_item(item, index, turn, answers=False)

    def _read_item(self, sent: JsonMapping) -> tuple[JsonObject, dict[int, Turn], ItemSize]:
        """Returns the stored form of a sent item, its turns to be transcribed, and its size."""
        check_item(sent, "item")
        item = stored_item(sent)
        turns = self._input_turns.pop_turns(item)
        return item, turns, ItemSize.of(item)

    async def _retrieve_item(self, event: JsonMapping) -> None:
        item = self._conversation.find(event["item_id"])
        add_request_bytes(item)
        await self._sender.send({"type": "conversation.item.retrieved", "item": item})

    async def _truncate_item(self, event: JsonMapping) -> None:
        if event["content_index"] != 0:
            raise InvalidRequest(
                "`content_index` must be 0: the item has one part.", param="content_index"
            )
        fields = {"item_id": event["item_id"], "content_index": 0}
        fields["audio_end_ms"] = int(event["audio_end_ms"])  # JSON has 500.0, too
        self._conversation.truncate(fields["item_id"], fields["audio_end_ms"])
        await self._sender.send({"type": "conversation.item.truncated", **fields})

    async def _delete_item(self, event: JsonMapping) -> None:
        deleted = self._conversation.delete(event["item_id"])
        events = ({"type": "conversation.item.deleted", "item_id": id} for id in deleted)
        await self._sender.send(*events)

    async def _create_response(self, event: JsonMapping) -> None:
        if self._config.is_transcription:
            raise InvalidRequest("A session that transcribes has no responses.", param="type")
        changes: JsonObject = event.get("response") or {}
        config = self._config
        if changes:  # an answer to a turn has none, and begins before another event is handled
            config = await offload(config.for_response, changes)
        items: list[JsonMapping] = list(self._conversation)
        if "input" in changes:
            sent = await offload(_input_items, changes["input"])
            items = [self._find_input_item(index, one) for index, one in enumerate(sent)]
        is_out_of_band = changes.get("conversation") == "none"
        self._check_capacity(is_out_of_band=is_out_of_band)
        if not is_out_of_band and "input" not in changes:
            self._input_turns.cancel_pending_answers()
        response = RealtimeResponse(
            config,
            items,
            None if is_out_of_band else self._conversation,
            self._requests,
            self._sender,
            client_event_id=client_event_id(event),
            wait_for_input=self._input_turns.wait,
        )
        self._responses[response.id] = response
        task = response.start(self._tasks)  # immediately: from now on it may be cancelled
        task.add_done_callback(lambda _: self._forget(response, task))

    def _find_input_item(self, index: int, item: JsonMapping) -> JsonMapping:
        """Returns an item of a response's input, that of the conversation for a reference."""
        if item["type"] != _REFERENCE:
            return item
        return self._conversation.find(item["id"], f"response.input[{index}].id")

    def _check_capacity(self, *, is_out_of_band: bool) -> None:
        """Raises `InvalidRequest` for a second response in the conversation, and `RateLimited`
        beyond the limit."""
        if not is_out_of_band and self._conversation_response is not None:
            raise InvalidRequest(
                "The conversation has a response in progress: cancel it, or wait for its end.",
                code="conversation_already_has_active_response",
            )
        if self._is_full:
            raise RateLimited(
                f"The session has {self._responses_limit} responses in progress already.",
                code="websocket_stream_limit_reached",
            )

    def _can_answer(self) -> bool:
        return self._conversation_response is None and not self._is_full

    @property
    def _is_full(self) -> bool:
        return len(self._responses) >= self._responses_limit

    @property
    def _conversation_response(self) -> RealtimeResponse | None:
        """The response in progress in the conversation; None if there is none."""
        ongoing = (one for one in self._responses.values() if not one.has_ended)
        return next((one for one in ongoing if one.is_in_conversation), None)

    def _forget(self, response: RealtimeResponse, task: asyncio.Task[None]) -> None:
        self._responses.pop(response.id, None)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or isinstance(error, ClientGone):
            return
        if error is not None:
            log.error("realtime_response_failed", exc_info=error)
        # A turn may have been transcribed meanwhile.
        self._tasks.start(self._input_turns.answer_if_due())

    async def _interrupt(self) -> None:
        """Cancels the response in the conversation: the user speaks."""
        if (response := self._conversation_response) is not None:
            await response.cancel("turn_detected")

    async def _answer_turn(self) -> None:
        await self._create_response({"type": "response.create"})

    async def _cancel_response(self, event: JsonMapping) -> None:
        id: str | None = event.get("response_id")
        response = self._conversation_response if id is None else self._responses.get(id)
        if response is None:
            raise InvalidRequest(
                "There is no such response in progress.", param="response_id",
                code="response_cancel_not_active",
            )  # fmt: skip
        await response.cancel("client_cancelled")


def _input_items(sent: Sequence[JsonMapping]) -> list[JsonMapping]:
    """Returns the items of a response that answers its own input; references stay as they are."""
    for index, item in enumerate(sent):
        if item["type"] != _REFERENCE:
            _check_input_item(item, f"response.input[{index}]")
    return [item if item["type"] == _REFERENCE else stored_item(item) for item in sent]


def _check_input_item(item: JsonMapping, where: str) -> None:
    """Checks an item as `check_item` does; its audio needs a transcript, too."""
    check_item(item, where)
    for index, part in enumerate(item["content"] if item["type"] == "message" else ()):
        if part.get("audio") and not part.get("transcript"):
            raise UnsupportedField(
                "Audio is heard as an item of the conversation, which `input` can name by an "
                "`item_reference`; otherwise send its `transcript`.",
                param=f"{where}.content[{index}].audio",
            )
