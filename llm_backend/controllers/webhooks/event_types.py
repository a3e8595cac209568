"""Types of the events that happen on this server, in OpenAI's words."""

from collections.abc import Sequence

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest

EVENT_TYPES = (
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
)


async def list_webhook_event_types(services: Services, request: ApiRequest) -> Response:
    """`GET /webhook_event_types`"""
    return JsonResponse({"object": "list", "data": [*EVENT_TYPES]})


def check_event_types(types: Sequence[str]) -> list[str]:
    """Returns the types without repetition. Raises `InvalidRequest` for one that never happens."""
    for place, type in enumerate(types):
        check_event_type(type, f"event_types[{place}]")
    return list(dict.fromkeys(types))


def check_event_type(type: str, where: str) -> None:
    """Raises `InvalidRequest` with the param `where` for a type that never happens here."""
    if type not in EVENT_TYPES:
        raise InvalidRequest(
            f"This server sends no `{type}` events; GET /v1/webhook_event_types lists those that "
            "it sends.",
            param=where,
        )
