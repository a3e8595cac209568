"""Relay of operations to an upstream, or a typed 501 without one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from llm_backend.access import RequestMeter, fairness_key
from llm_backend.backends.upstream.body_rewriting import rename_model
from llm_backend.backends.upstream.content_coding import Observe, observable_headers
from llm_backend.backends.upstream.headers import Headers
from llm_backend.backends.upstream.passed_headers import without_credentials
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_request import UpstreamRequest, ignore
from llm_backend.contract.application.envelope import encode_target
from llm_backend.contract.body import announces_body
from llm_backend.controllers.relay.relay_disconnect import (
    CancelOnRelayDisconnect,
    RequestBodyStream,
)
from llm_backend.controllers.relay.relayed_response import (
    Finish,
    RelayedResponse,
    documented_error,
)
from llm_backend.controllers.services.unknown_field_reporter import UnknownFieldReporter
from llm_backend.errors import ApiError, ClientGone, InvalidRequest, Unsupported
from llm_backend.offload import offload

_PREFIX = b"/v1"
_FIRST_ERROR_STATUS = 400
_DOT_SEGMENTS = frozenset({b".", b".."})


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Target of a relayed request: the upstream's name of the model, and the upstream if a route
    names one.

    `has_fallback`: the route has a further target, so statuses of `retry_rules.FALLBACK` are raised
    as errors, or with `is_at_most_once` those of `BUSY` only.
    """

    model: str
    upstream: str | None = None
    has_fallback: bool = False
    is_at_most_once: bool = False


class Exchanger(Protocol):
    """Interface of the upstreams, as the relay uses them."""

    async def exchange(self, request: UpstreamRequest) -> UpstreamAnswer: ...


class RelayServices(Protocol):
    """Services that the relay uses."""

    @property
    def upstreams(self) -> Exchanger | None: ...
    @property
    def unknown_fields(self) -> UnknownFieldReporter: ...


class _OperationKey(Protocol):
    @property
    def operation_id(self) -> str: ...
    @property
    def tag(self) -> str: ...


class RelayRequest(Protocol):
    """Request as the relay uses it: `raw_body` holds a JSON body and `body` is its parsed value;
    other bodies are streamed."""

    @property
    def operation(self) -> _OperationKey: ...
    @property
    def body(self) -> Any: ...  # Any: parsed JSON
    @property
    def raw_body(self) -> bytes: ...
    @property
    def http(self) -> HttpRequest: ...
    @property
    def caller(self) -> Any: ...  # Any: the result of `authenticate`
    @property
    def meter(self) -> RequestMeter | None: ...


async def relay(
    services: RelayServices,
    request: RelayRequest,
    *,
    to: Destination | None = None,
    observe: Observe | None = None,
    finish: Finish | None = None,
) -> RelayedResponse:
    """Relays the request and returns the upstream's answer as soon as its headers have arrived.

    Without `to`, the upstream is chosen by the model of the body, or by the operation.

    `observe` is called with the bytes of a 2xx answer before they are sent, content coding removed.
    `finish` is called once for an answer that began: before its last bytes are sent if they can be
    recognized, else after them. It is also called when the answer breaks off or the client
    disconnects. Its result, if any, is awaited; an `ApiError` of it aborts the answer. Raises
    `Unsupported` without an upstream, `InvalidRequest` for a path that no upstream gets and, if
    `strict`, for unknown fields, `ServiceUnavailable` if all upstreams are full, `UpstreamFailed`,
    `UpstreamTimeout`, and `ClientGone` if the client disconnects before the answer began.
    """
    if services.upstreams is None:
        raise Unsupported(
            f"The operation `{request.operation.operation_id}` is not answered by this server "
            "itself: set OPENAI_API_KEY, and OPENAI_BASE_URL for another server than OpenAI's, "
            "and it is relayed there."
        )
    extra_headers = await offload(
        services.unknown_fields.report, request.operation.operation_id, request.body
    )
    http = request.http
    upload = RequestBodyStream(http)
    headers: Headers = http.scope["headers"]
    meter = request.meter
    if meter is not None:
        meter.mark_relayed()
    # Counting and observing parse the body, so its content coding must be known.
    if meter is not None or observe is not None:
        headers = observable_headers(headers)
    client = CancelOnRelayDisconnect(http.receive, upload)
    relayed: UpstreamAnswer | None = None
    try:
        async with client:
            relayed = await services.upstreams.exchange(
                UpstreamRequest(
                    method=http.method,
                    path=upstream_path(http.scope),
                    query=upstream_query(http.scope).encode(),
                    headers=headers,
                    body=await _body(request, upload, to),
                    operation=(request.operation.operation_id, request.operation.tag),
                    model=to.model if to else requested_model(request),
                    upstream=to.upstream if to else None,
                    streams=_streams(request.body),
                    has_fallback=to.has_fallback if to else False,
                    is_at_most_once=to.is_at_most_once if to else False,
                    fairness_key=fairness_key(request.caller),
                    on_abandoned=ignore if meter is None else meter.mark_abandoned,
                )
            )
            if relayed.status >= _FIRST_ERROR_STATUS:
                relayed = await documented_error(relayed, http)
    except ApiError:
        if not client.is_disconnected:
            raise
    if client.is_disconnected:
        if relayed is not None:
            if meter is not None and 200 <= relayed.status < 300:
                meter.mark_abandoned()
            await relayed.aclose()
        raise ClientGone
    assert relayed is not None, "an exchange gives an answer or an error"
    return RelayedResponse(
        relayed,
        upload,
        path=http.url.path,
        extra_headers=extra_headers,
        observe=observe,
        finish=finish,
    )


async def _body(
    request: RelayRequest, upload: RequestBodyStream, to: Destination | None
) -> bytes | AsyncIterator[bytes]:
    if not request.raw_body and _has_unread_body(request.http):
        return upload.begin()
    if to is None or to.model == requested_model(request):
        return request.raw_body
    return await offload(rename_model, request.raw_body, to.model)


def _has_unread_body(http: HttpRequest) -> bool:
    """True if the request has a body that has not been read yet: only JSON is read before."""
    headers = http.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return announces_body(headers) and media_type != "application/json"


def _streams(body: Any) -> bool | None:  # Any: parsed JSON
    """True if a JSON body asks for an event stream; None for other bodies."""
    return bool(body.get("stream")) if isinstance(body, dict) else None


def requested_model(request: RelayRequest) -> str | None:
    """Returns the model that a JSON body names."""
    named = request.body.get("model") if isinstance(request.body, dict) else None
    return named if isinstance(named, str) else None


def upstream_path(scope: Scope) -> str:
    """Returns the client's path without this API's prefix; percent-encoding is preserved."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    for prefix in (scope.get("root_path", "").encode(), _PREFIX):
        if prefix and raw.startswith(prefix + b"/"):
            raw = raw.removeprefix(prefix)
    plain_path = raw.lower().replace(b"%2e", b".").replace(b"%2f", b"/").replace(b"%5c", b"/")
    if _DOT_SEGMENTS & set(plain_path.split(b"/")):
        raise InvalidRequest("A path with `.` or `..` segments is not relayed.")
    return encode_target(raw)


def upstream_query(scope: Scope) -> str:
    """Returns the client's query string, without keys."""
    return without_credentials(encode_target(scope["query_string"]))
