"""Operations that are not answered here: relayed to the upstream, or a typed 501 without one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from llm_backend.access import expects_upstream_usage as counted_as_relayed
from llm_backend.access import mark_sent as counted_as_sent
from llm_backend.backends.upstream.body_rewriting import rename_model
from llm_backend.backends.upstream.headers import (
    Headers,
    Observe,
    UpstreamAnswer,
    observable_headers,
)
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.controllers.relay.client_disconnect import UploadProgress, WhileConnected
from llm_backend.controllers.relay.relayed_response import Finish, RelayedResponse
from llm_backend.controllers.relay.unknown_fields import UnknownFields
from llm_backend.errors import ApiError, ClientGone, InvalidRequest, Unsupported
from llm_backend.offload import offload

__all__ = [
    "Destination",
    "Exchanger",
    "RelayRequest",
    "RelayServices",
    "fairness_key",
    "model_named",
    "relay",
    "upstream_path",
    "upstream_query",
]

_PREFIX = b"/v1"
_PRINTABLE = bytes(range(0x21, 0x7F))
_DOT_SEGMENTS = frozenset({b".", b".."})


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where a request goes: the model's name there, and the upstream where a route names one.

    With `has_other`, an answer that says no more than that the upstream cannot answer is raised.
    """

    model: str
    upstream: str | None = None
    has_other: bool = False


class Exchanger(Protocol):
    """What relaying needs of the upstreams."""

    async def exchange(self, asked: UpstreamRequest) -> UpstreamAnswer: ...


class RelayServices(Protocol):
    """What relaying needs of the services."""

    @property
    def upstream(self) -> Exchanger | None: ...
    @property
    def unknown_fields(self) -> UnknownFields: ...


class _Operation(Protocol):
    @property
    def operation_id(self) -> str: ...
    @property
    def tag(self) -> str: ...


class RelayRequest(Protocol):
    """What relaying needs of a request: `raw_body` holds a JSON body, which `body` is, parsed;
    others are still to come."""

    @property
    def operation(self) -> _Operation: ...
    @property
    def body(self) -> Any: ...  # Any: parsed JSON
    @property
    def raw_body(self) -> bytes: ...
    @property
    def http(self) -> HttpRequest: ...
    @property
    def caller(self) -> Any: ...  # Any: what `authenticate` has made of the key


async def relay(
    services: RelayServices,
    request: RelayRequest,
    *,
    to: Destination | None = None,
    observe: Observe | None = None,
    finish: Finish | None = None,
) -> RelayedResponse:
    """Sends the request on and returns the upstream's answer as soon as its headers are there.

    Without `to` it goes to whoever serves the model that its body names, or the operation.

    `observe` sees the bytes of a 2xx answer before they go out, without their content coding.
    `finish` is called once for an answer that began, where it can be known before the bytes that
    complete it go out, and also when it broke off or the client left. What it returns, if anything,
    is awaited; an `ApiError` of it breaks the answer off. Raises `Unsupported` without an upstream,
    `UpstreamFailed`, `UpstreamTimeout`, and `ClientGone` when the client left before the answer
    began.
    """
    if services.upstream is None:
        raise Unsupported(
            f"The operation `{request.operation.operation_id}` is not answered by this server "
            "itself: set OPENAI_API_KEY, and OPENAI_BASE_URL for another server than OpenAI's, "
            "and it is relayed there."
        )
    told = await offload(services.unknown_fields.told, request.operation.operation_id, request.body)
    http = request.http
    upload = UploadProgress(http)
    headers: Headers = http.scope["headers"]
    if counted_as_relayed() or observe is not None:  # what is counted is read, too
        headers = observable_headers(headers)
    client = WhileConnected(http.receive, upload)
    relayed: UpstreamAnswer | None = None
    try:
        async with client:
            relayed = await services.upstream.exchange(
                UpstreamRequest(
                    method=http.method,
                    path=upstream_path(http.scope),
                    query=upstream_query(http.scope).encode(),
                    headers=headers,
                    body=await _body(request, upload, to),
                    operation=(request.operation.operation_id, request.operation.tag),
                    model=to.model if to else model_named(request),
                    upstream=to.upstream if to else None,
                    streams=_streams(request.body),
                    has_other=to.has_other if to else False,
                    who=fairness_key(request.caller),
                    on_left=counted_as_sent,
                )
            )
    except ApiError:
        if not client.has_left:
            raise
    if client.has_left:
        if relayed is not None:
            if 200 <= relayed.status < 300:
                counted_as_sent()
            await relayed.aclose()
        raise ClientGone
    assert relayed is not None, "an exchange gives an answer or an error"
    return RelayedResponse(relayed, upload, told=told, observe=observe, finish=finish)


async def _body(
    request: RelayRequest, upload: UploadProgress, to: Destination | None
) -> bytes | AsyncIterator[bytes]:
    if not request.raw_body and _is_still_to_come(request.http):
        return upload.begin()
    if to is None or to.model == model_named(request):
        return request.raw_body
    return await offload(rename_model, request.raw_body, to.model)


def _is_still_to_come(http: HttpRequest) -> bool:
    """Whether there is a body that has not been read: JSON has been."""
    headers = http.headers
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_announced = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    return is_announced and media_type != "application/json"


def fairness_key(caller: Any) -> str:  # Any: as in `RelayRequest`
    """Whose requests are told apart where some must wait: those of each key."""
    return str(caller.key_id or "") if caller is not None else ""


def _streams(body: Any) -> bool | None:  # Any: parsed JSON
    """Whether a JSON body asks for events."""
    return bool(body.get("stream")) if isinstance(body, dict) else None


def model_named(request: RelayRequest) -> str | None:
    """The model that a JSON body names."""
    named = request.body.get("model") if isinstance(request.body, dict) else None
    return named if isinstance(named, str) else None


def upstream_path(scope: Scope) -> str:
    """The path as the client sent it, without what leads to this API; percent-encoding kept."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    for prefix in (scope.get("root_path", "").encode(), _PREFIX):
        if prefix and raw.startswith(prefix + b"/"):
            raw = raw.removeprefix(prefix)
    plain_path = raw.lower().replace(b"%2e", b".").replace(b"%2f", b"/").replace(b"%5c", b"/")
    if _DOT_SEGMENTS & set(plain_path.split(b"/")):
        raise InvalidRequest("A path with `.` or `..` segments is not relayed.")
    return _ascii(raw)


def upstream_query(scope: Scope) -> str:
    """The query as the client sent it."""
    return _ascii(scope["query_string"])


def _ascii(raw: bytes) -> str:
    """A request target's part as it was sent; what no target may hold is percent-encoded."""
    return quote(raw, safe=_PRINTABLE) if raw.strip(_PRINTABLE) else raw.decode()
