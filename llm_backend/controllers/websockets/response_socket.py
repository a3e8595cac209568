"""Responses over a WebSocket: `response.create` in, the response's events out.

Each message is a request of its own, with the key of the connection. The answer of `POST
/responses`, by a local model or an upstream, is sent as messages.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from contextlib import aclosing
from functools import partial
from typing import Any

import orjson
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from llm_backend import exact_json
from llm_backend.backends.upstream.websockets import (
    CloseReason,
    Message,
    upstream_protocols,
    with_key,
)
from llm_backend.contract.body import BodyLimits, json_limits
from llm_backend.controllers.internal_requests import (
    Headers,
    json_body,
    open_exchange,
    parse_message,
)
from llm_backend.controllers.realtime.client_events import unsupported_event_error
from llm_backend.controllers.services import Services
from llm_backend.controllers.websockets.client_socket import GOING_AWAY, ClientSocket
from llm_backend.controllers.websockets.stream_queues import StreamQueues
from llm_backend.controllers.websockets.unstored_responses import UnstoredResponses, is_unstored
from llm_backend.error_bodies import error_body
from llm_backend.errors import ApiError, ClientGone, Internal, InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.offload import REQUEST_BYTES, offload

log = logging.getLogger(__name__)

PATH = "/v1/responses"
_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")  # pattern of the document
_LAST_EVENT = re.compile(r'"response\.(completed|incomplete)"')
_MESSAGE_FIELDS = ("type", "stream_id", "stream")
_STEERING_FIELDS = frozenset({"type", "previous_response_id", "input"})
_STEERING_MESSAGE = (
    "A response is not steered here: it is generated to its end. Cancel it, or send the input with "
    "a `response.create` that has its id as `previous_response_id`."
)


async def serve_responses(services: Services, socket: WebSocket, app: ASGIApp) -> None:
    """Serves `/responses` until the client disconnects or the idle timeout."""
    settings = services.settings
    await socket.receive()  # the connect event
    protocols = socket.scope.get("subprotocols") or []
    offered_protocols = upstream_protocols(protocols)
    await socket.accept(offered_protocols[0] if offered_protocols else None)
    queues = StreamQueues(
        streams_limit=settings.socket_streams_limit,
        waiting_limit=settings.socket_waiting_limit,
        waiting_limit_bytes=settings.body_limit_bytes,
    )
    async with ClientSocket(socket) as client:
        connection = _ResponseConnection(
            client,
            app,
            _headers(socket, protocols),
            queues,
            UnstoredResponses(settings.body_limit_bytes),
            limits=json_limits(settings),
        )
        try:
            await connection.run(settings.socket_idle_timeout_s)
        finally:
            await queues.aclose()


def _headers(socket: WebSocket, protocols: list[str]) -> Headers:
    headers = with_key(dict(socket.headers), protocols)
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


class _ResponseConnection:
    """Requests and answers of one connection."""

    def __init__(
        self,
        client: ClientSocket,
        app: ASGIApp,
        headers: Headers,
        queues: StreamQueues,
        unstored: UnstoredResponses,
        *,
        limits: BodyLimits,
    ) -> None:
        self._limits = limits
        self._client = client
        self._app = app
        self._headers = headers
        self._queues = queues
        self._unstored = unstored
        self._sending = asyncio.Lock()  # one of the concurrent streams sends at a time

    async def run(self, idle_timeout_s: float) -> None:
        """Handles messages until the client disconnects, or has sent nothing for the idle timeout,
        which begins at its last message or at the end of the last answer."""
        messages = self._client.messages()
        while True:
            receiving = asyncio.ensure_future(anext(messages, None))
            idle_s = 0.0
            try:
                while not (await asyncio.wait({receiving}, timeout=idle_timeout_s - idle_s))[0]:
                    idle_s = self._queues.idle_s
                    if idle_s >= idle_timeout_s:
                        await self._client.close(CloseReason(code=GOING_AWAY, reason="idle"))
                        return
            finally:
                receiving.cancel()
            message = receiving.result()
            if message is None:
                return
            await self._handle_message(message)

    async def _handle_message(self, message: Message) -> None:
        stream_id: str | None = None
        try:
            REQUEST_BYTES.set(len(message))
            event = await offload(parse_message, message, self._limits)
            stream_id = _stream_id(event)
            if event.get("type") == "response.steer":
                await self._send_event(refuse_steering(event), stream_id)
                return
            body = await offload(_body, event)
            answer = partial(self._answer, stream_id, body, is_kept=is_unstored(event))
            self._queues.add(stream_id, answer, len(body))
        except ApiError as error:
            await self._send_event(_error_message(error), stream_id)

    async def _answer(self, stream_id: str | None, body: bytes, *, is_kept: bool) -> None:
        """Sends the events of a response, which is kept for the requests that continue it if no
        other part of the server stores it."""
        try:
            REQUEST_BYTES.set(len(body))
            if self._unstored.may_continue(body):
                body = await offload(self._unstored.expand, body)
            async with open_exchange(self._app, PATH, self._headers, body) as answer:
                if answer.status >= 400:
                    error_event = _ws_error(await answer.error())
                    await self._send_event({**error_event, "status": answer.status}, stream_id)
                    return
                async with aclosing(answer.events()) as events:
                    async for data in events:
                        if is_kept and _LAST_EVENT.search(data, 0, 64):
                            await offload(self._unstored.add, body, data)
                        await self._pass_on(data, stream_id)
        except ClientGone:
            return
        except Exception:  # as in the error renderer: a bug must not look like silence
            log.exception("socket_answer_failed")
            error = Internal("The server failed in the middle of the answer; its log says why.")
            await self._send_event(_error_message(error), stream_id)

    async def _pass_on(self, data: str, stream_id: str | None) -> None:
        if data == "[DONE]":  # some upstreams end responses with it
            return
        event = orjson.loads(data) if '"error"' in data[:64] else None
        if event is not None and (event.get("type") == "error" or "type" not in event):
            await self._send_event(_ws_error(event.get("error") or event, event), stream_id)
            return
        stream = "" if stream_id is None else f',"stream_id":"{stream_id}"'
        await self._send(f"{data.rstrip()[:-1]}{stream}}}")

    async def _send_event(self, event: JsonObject, stream_id: str | None) -> None:
        stream = {} if stream_id is None else {"stream_id": stream_id}
        await self._send(exact_json.dumps({**event, **stream}).decode())

    async def _send(self, text: str) -> None:
        async with self._sending:
            await self._client.send(text)


def _stream_id(event: Mapping[str, Any]) -> str | None:
    value = event.get("stream_id")
    if value is None:
        return None
    if not isinstance(value, str) or not _STREAM_ID.fullmatch(value):
        raise InvalidRequest(
            "`stream_id` must be 1 to 256 letters, digits, `_`, `.` or `-`.", param="stream_id"
        )
    return value


def _body(event: Mapping[str, Any]) -> bytes:
    """Returns the request body of an event."""
    if event.get("type") != "response.create":
        raise unsupported_event_error(event.get("type"), "send `response.create`")
    if event.get("stream") not in (None, True):
        raise InvalidRequest(
            "Over a WebSocket all is streamed; leave `stream` out.", param="stream"
        )
    if event.get("background"):
        raise InvalidRequest(
            "`background` is not offered over a WebSocket; use POST /v1/responses.",
            param="background",
        )
    fields = {name: value for name, value in event.items() if name not in _MESSAGE_FIELDS}
    return json_body({**fields, "stream": True})


def _error_message(error: ApiError) -> JsonObject:
    return {**_ws_error(error_body(error)["error"]), "status": error.status}


def _ws_error(error: Mapping[str, Any], event: Mapping[str, Any] | None = None) -> JsonObject:
    """Returns the document's error event of WebSockets."""
    numbered = {name: value for name, value in (event or {}).items() if name == "sequence_number"}
    return {
        "type": "error",
        **numbered,
        "error": {
            "type": error.get("type") if error.get("type") != "error" else "server_error",
            "code": error.get("code"),
            "message": error.get("message"),
            "param": error.get("param"),
        },
    }


def refuse_steering(event: Mapping[str, Any]) -> JsonObject:
    """Refuses `response.steer`, which would change a response that is being generated. The returned
    event, `response.steer.failed`, hands the input back.

    Raises `InvalidRequest` for an event with other fields than the SDK's.
    """
    if unknown := sorted(event.keys() - _STEERING_FIELDS):
        raise InvalidRequest(
            f"`response.steer` has no field `{unknown[0]}`.", param=unknown[0],
            code="unknown_parameter",
        )  # fmt: skip
    response_id, steering_input = event.get("previous_response_id"), event.get("input")
    if not isinstance(response_id, str):
        raise InvalidRequest(
            "`previous_response_id` must be the id of the response to steer.",
            param="previous_response_id",
        )
    if not isinstance(steering_input, str | list) or not steering_input:
        raise InvalidRequest("`input` must be text, or a list of messages of users.", param="input")
    return {
        "type": "response.steer.failed",
        "sequence_number": 0,
        "error": {
            "type": "invalid_request_error",
            "code": "steering_not_supported",
            "message": _STEERING_MESSAGE,
        },
        "steer": {"previous_response_id": response_id, "input": steering_input},
    }
