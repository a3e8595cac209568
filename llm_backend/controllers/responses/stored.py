"""Responses that are kept: shown again, listed from, forgotten, cancelled."""

from starlette.responses import Response

from llm_backend import errors
from llm_backend.contract.request import Request
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.kept_here import kept_here
from llm_backend.controllers.responses.items import item_list, shown_item
from llm_backend.controllers.services import Services

__all__ = ["cancel_response", "delete_response", "get_response", "list_input_items"]

DEFAULT_LIMIT = 20  # the document's


@kept_here("response", "response_id")
async def get_response(services: Services, request: Request) -> Response:
    """`GET /responses/{response_id}`"""
    body = await services.responses.responses.get(request.path["response_id"])
    if request.query.get("stream"):
        raise errors.UnsupportedField(
            "Only responses that were created with `background` and `stream` are streamed again.",
            param="stream",
        )
    include = request.query.get("include") or ()
    return JsonResponse({**body, "output": [shown_item(one, include) for one in body["output"]]})


@kept_here("response", "response_id")
async def delete_response(services: Services, request: Request) -> Response:
    """`DELETE /responses/{response_id}`"""
    response_id = request.path["response_id"]
    await services.responses.responses.delete(response_id)
    return JsonResponse({"id": response_id, "object": "response", "deleted": True})


@kept_here("response", "response_id")
async def cancel_response(services: Services, request: Request) -> Response:
    """`POST /responses/{response_id}/cancel`"""
    response_id = request.path["response_id"]
    await services.responses.responses.get(response_id)
    raise errors.InvalidRequest(
        f"`{response_id}` was not created with `background`, so it cannot be cancelled."
    )


@kept_here("response", "response_id")
async def list_input_items(services: Services, request: Request) -> Response:
    """`GET /responses/{response_id}/input_items`"""
    query = request.query
    page = await services.responses.responses.input(
        request.path["response_id"],
        after=query.get("after"),
        limit=query.get("limit", DEFAULT_LIMIT),
        order=query.get("order", "desc"),
    )
    return JsonResponse(item_list(page, query.get("include") or ()))
