"""Operations on stored responses: retrieve, replay events, list input items, delete, cancel."""

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llm_backend import errors
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.obfuscation import obfuscation_for
from llm_backend.controllers.rendering.page_query import page_arguments
from llm_backend.controllers.rendering.poll_interval import poll_headers
from llm_backend.controllers.response_items.items import item_list, public_form
from llm_backend.controllers.responses.background.queueing import FROM_THE_START
from llm_backend.controllers.responses.relayed_background import (
    relay_stored_operation,
    relay_stored_response,
)
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


@local_or_upstream("response", "response_id", relay_by=relay_stored_response)
async def get_response(services: Services, request: ApiRequest) -> Response:
    """`GET /responses/{response_id}`: the current object, or the stream of its events after the
    number `starting_after`."""
    response_id = request.path["response_id"]
    query: api.GetResponseQuery = request.query
    if query.get("stream"):
        return await _replay_events(services, response_id, query)
    if query.get("starting_after") is not None:
        raise errors.InvalidRequest("`starting_after` needs `stream`.", param="starting_after")
    body = await services.responses.responses.get(response_id)
    response = _public_response(body, query.get("include") or ())
    if body["status"] not in ("queued", "in_progress"):
        return JsonResponse(response)
    return JsonResponse(response, headers=poll_headers(body["created_at"], time.time()))


@local_or_upstream("response", "response_id", relay_by=relay_stored_operation)
async def delete_response(services: Services, request: ApiRequest) -> Response:
    """`DELETE /responses/{response_id}`: a response still being answered is cancelled."""
    response_id = request.path["response_id"]
    await services.background.delete(response_id)
    return deleted_response(response_id, "response")


@local_or_upstream("response", "response_id", relay_by=relay_stored_response)
async def cancel_response(services: Services, request: ApiRequest) -> Response:
    """`POST /responses/{response_id}/cancel`: returns the current object; a response that has
    ended is unchanged."""
    response_id = request.path["response_id"]
    body = await services.background.cancel(response_id)
    if not body.get("background"):
        raise errors.InvalidRequest(
            f"`{response_id}` was not created with `background`, so it cannot be cancelled."
        )
    return JsonResponse(_public_response(body))


@local_or_upstream("response", "response_id", relay_by=relay_stored_operation)
async def list_input_items(services: Services, request: ApiRequest) -> Response:
    """`GET /responses/{response_id}/input_items`"""
    query: api.ListInputItemsQuery = request.query
    page = await services.responses.responses.input(
        request.path["response_id"],
        **page_arguments(query),
    )
    return JsonResponse(item_list(page, query.get("include") or ()))


async def _replay_events(
    services: Services, response_id: str, query: "api.GetResponseQuery"
) -> Response:
    if not await services.background.has_events(response_id):
        raise errors.InvalidRequest(
            "Only responses that were created with `background` and `stream` are streamed again.",
            param="stream",
        )
    after = query.get("starting_after")
    obfuscation = obfuscation_for(query, default=services.settings.obfuscate_streams)
    begin = FROM_THE_START if after is None else after
    include = query.get("include") or ()
    follower = services.background.follow(response_id, begin, obfuscation, include)
    return await event_stream(
        _begin_at_once(follower.events()), ending=b"", failure=follower.failure
    )


async def _begin_at_once(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yields an empty chunk before the events, so that the answer begins immediately even if the
    first event comes late."""
    async with aclosing(events):
        yield b""
        async for event in events:
            yield event


def _public_response(body: Mapping[str, Any], include: Sequence[str] = ()) -> Mapping[str, Any]:
    return {**body, "output": [public_form(one, include) for one in body["output"]]}
