"""One response of a realtime session: its request to `/responses`, its events, its end."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from llm_backend import exact_json
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.controllers.internal_requests import json_body
from llm_backend.controllers.realtime.conversation import Conversation, model_input
from llm_backend.controllers.realtime.event_sender import EventSender, error_event
from llm_backend.controllers.realtime.rate_limit_events import rate_limits_event
from llm_backend.controllers.realtime.response_events import CancelReason, ResponseEvents
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.controllers.realtime.session_requests import InternalRequestFailed, SessionRequests
from llm_backend.controllers.realtime.spoken_text import SpokenText
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, ClientGone, Internal
from llm_backend.json_types import JsonMapping
from llm_backend.offload import REQUEST_BYTES, add_request_bytes, offload

log = logging.getLogger(__name__)

_FAILED = "The server failed in the middle of the answer; its log says why."


class RealtimeResponse:
    """A response to `items`. Its output items are added to `conversation`, unless that is None."""

    def __init__(
        self,
        config: SessionConfig,
        items: list[JsonMapping],
        conversation: Conversation | None,
        requests: SessionRequests,
        sender: EventSender,
        *,
        client_event_id: str | None,
        wait_for_input: Callable[[], Awaitable[None]],
    ) -> None:
        self.id = f"resp_{uuid.uuid4().hex[:24]}"
        self.is_in_conversation = conversation is not None
        self._config = config
        self._items = items
        self._conversation = conversation
        self._requests = requests
        self._sender = sender
        self._client_event_id = client_event_id
        self._wait_for_input = wait_for_input
        self._events = ResponseEvents(self.id, config, conversation)
        self._spoken: SpokenText | None = None  # of the message that is being written
        self._cancel_reason: CancelReason | None = None
        self._is_waiting = False  # for the model: `cancel` cancels the task only then
        self.has_ended = False  # True once the last event is on its way
        self._task: asyncio.Task[None] | None = None

    def start(self, tasks: BackgroundTasks) -> asyncio.Task[None]:
        """Starts a task, which sends the first event and then the request to the model."""
        self._task = task = tasks.start(self._run())
        task.add_done_callback(self._drop_task)
        return task

    def _drop_task(self, _task: asyncio.Task[None]) -> None:
        self._task = None  # it keeps its error, whose frames refer to this object

    async def cancel(self, reason: CancelReason) -> None:
        """Cancels the response and sends its last events, unless it has ended. A batch of events
        that is being sent is completed."""
        assert self._task is not None, "a response is started before it is cancelled"
        if not self._events.is_over:
            self._cancel_reason = reason
            if self._is_waiting:
                self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._sender.send(self._events.begin())
            if self._cancel_reason is None:  # else it was cancelled meanwhile
                self._is_waiting = True
                await self._answer()
        except asyncio.CancelledError:
            if self._cancel_reason is None:  # the session ends
                raise
        except ClientGone:
            return
        except InternalRequestFailed as failed:
            await self._fail(failed.error)
        except ApiError as error:
            await self._fail(error_body(error)["error"])
        except Exception:  # as in the error renderer: a bug must not look like silence
            log.exception("realtime_response_failed")
            await self._fail(error_body(Internal(_FAILED))["error"])
        finally:
            await self._stop_speaking()
        if self._cancel_reason is not None and not self._events.is_over:
            await self._send_all(self._events.cancel(self._cancel_reason))
        self.has_ended = True
        await self._sender.send(self._events.end())

    async def _answer(self) -> None:
        await self._wait_for_input()  # its transcript may not be ready yet
        body = await self._encode_body()
        async with (
            self._requests.open("/responses", body) as answer,
            aclosing(answer.events()) as events,
        ):
            if (limits := rate_limits_event(answer.headers)) is not None:
                await self._send_all([limits])
            async for data in events:
                await self._add(exact_json.loads(data))
                if self._cancel_reason is not None:
                    return
        if not self._events.is_over:
            raise Internal("The answer ended before it was complete.")

    async def _encode_body(self) -> bytes:
        """Returns the body of the request, which is as large as the conversation and the
        configuration; the events of the answer are not."""
        size = REQUEST_BYTES.get()
        add_request_bytes(self._items, self._config.fields)
        body = await offload(self._body)
        REQUEST_BYTES.set(size)
        return body

    def _body(self) -> bytes:
        return json_body(self._config.request_body(model_input(self._items)))

    async def _add(self, event: JsonMapping) -> None:
        match event["type"]:
            case "response.failed":
                await self._fail({"type": "server_error", **event["response"]["error"]})
            case "error":
                await self._fail({**event, "type": "server_error"})
            case "response.output_text.done" | "response.refusal.done" if self._spoken is not None:
                await self._spoken.finish()
                self._spoken = None
                await self._send_all(self._events.add(event))
            case _:
                await self._send_all(self._events.add(event))
                if event["type"] in ("response.output_text.delta", "response.refusal.delta"):
                    self._speak(event["delta"])

    def _speak(self, text: str) -> None:
        """Reads text of a message aloud, if the session speaks."""
        item_id = self._events.message_id
        if not self._config.speaks or item_id is None:
            return
        if self._spoken is None:
            self._spoken = SpokenText(self._config, self._requests, self._send_audio)
            if self._conversation is not None:
                self._conversation.add_audio(item_id, self._spoken.sentences)
        self._spoken.add(text)

    async def _stop_speaking(self) -> None:
        if self._spoken is not None:
            spoken, self._spoken = self._spoken, None  # it refers to this response: a cycle
            await spoken.cancel()

    async def _send_audio(self, audio: bytes) -> None:
        await self._sender.send(self._events.add_audio(audio))

    async def _fail(self, error: JsonMapping) -> None:
        """Ends the response, and sends the error in an event of its own, because responses have no
        field for its message."""
        if self._events.is_over:
            return
        self._is_waiting = False  # for the model: the response ends here
        await self._stop_speaking()  # no audio of the item follows its end
        await self._send_all(self._events.fail(error))
        await self._sender.send(error_event(error, self._client_event_id))

    async def _send_all(self, events: Sequence[JsonMapping]) -> None:
        if events:
            self._is_waiting = False
            await self._sender.send(*events)
            self._is_waiting = True
