"""Relay of background responses of an upstream, with usage charged when the upstream reports it."""

from collections.abc import Awaitable

from starlette.responses import Response

from llm_backend.access import Tokens, UsageTail, read_usage, text_bytes
from llm_backend.access.usage.metered_operations import METERED
from llm_backend.backends.upstream.content_coding import Observe
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.relay import Destination, relay
from llm_backend.controllers.relay.relayed_response import Finish
from llm_backend.controllers.relay.routing import FALLBACK_ERRORS, operation_names
from llm_backend.controllers.responses.response_observer import (
    ResponseObserver,
    is_under_way,
)
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError, NotFound

_OUTPUT_TEXT = METERED["createResponse"].text_pattern


async def relay_response(
    services: Services, request: ApiRequest, *, to: Destination | None = None
) -> Response:
    """Relays `POST /responses`. For a response in the background, registers usage that is reported
    after this answer."""
    if not isinstance(request.body, dict) or not request.body.get("background"):
        return await relay(services, request, to=to)
    observer, usage_tail = ResponseObserver(), UsageTail(text_pattern=_OUTPUT_TEXT)

    def observe(chunk: bytes) -> None:
        observer.feed(chunk)
        usage_tail.feed(chunk)

    def register() -> Awaitable[None] | None:
        response = observer.response()
        if response is None or not is_under_way(response):
            return None  # a finished response: its usage is in this answer
        counted = (
            (text_bytes(request.raw_body), usage_tail.text_bytes()) if observer.is_stream else None
        )
        return services.access.deferred_usage.register(
            request.meter, response["id"], text_bytes=counted
        )

    return await relay(services, request, to=to, observe=observe, finish=register)


async def relay_stored_operation(services: Services, request: ApiRequest) -> Response:
    """Relays an operation on a stored response to the upstream that has it."""
    return await _relay_to_owner(services, request)


async def relay_stored_response(services: Services, request: ApiRequest) -> Response:
    """Relays a retrieval of an upstream's stored response. If the response has ended, its deferred
    usage is charged to its creator."""
    observer = ResponseObserver()

    def charge() -> Awaitable[None] | None:
        response = observer.response()
        if response is None or is_under_way(response):
            return None
        usage = _parse_usage(response.get("usage"))
        return (
            None if usage is None else services.access.deferred_usage.charge(response["id"], usage)
        )

    return await _relay_to_owner(services, request, observe=observer.feed, finish=charge)


async def _relay_to_owner(
    services: Services,
    request: ApiRequest,
    *,
    observe: Observe | None = None,
    finish: Finish | None = None,
) -> Response:
    """Tries the upstreams in order; returns the first answer that is not a 404, or raises the
    first failure."""
    assert services.upstreams is not None, "only an upstream may have the response"
    names = services.upstreams.response_upstreams(operation_names(request))
    if len(names) < 2:
        return await relay(services, request, observe=observe, finish=finish)
    failures: list[ApiError] = []
    for name in names:
        to = Destination(model="", upstream=name)
        try:
            answer = await relay(services, request, to=to, observe=observe, finish=finish)
        except FALLBACK_ERRORS as error:
            failures.append(error)
            continue
        if answer.status_code != NotFound.status or (name == names[-1] and not failures):
            return answer
        await answer.discard()
    raise failures[0]


def _parse_usage(value: object) -> Tokens | None:
    return read_usage(value) if isinstance(value, dict) else None
