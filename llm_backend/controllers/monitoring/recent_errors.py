"""Recent error responses, listed for the API key that received them."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.error_buffer import AnsweredError

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def list_errors(services: Services, request: ApiRequest) -> Response:
    """`GET /chat/errors`"""
    errors = services.recent_errors.of(request.caller.key_id)
    answer: api.AnsweredErrorList = {
        "object": "list",
        "data": [_error_object(error) for error in errors],
    }
    return JsonResponse(answer)


def _error_object(error: AnsweredError) -> "api.AnsweredErrorListData":
    return {
        "object": "answered_error",
        "created": error.at,
        "request_id": error.request_id,
        "operation": error.operation,
        "status": error.status,
        "code": error.code,
        "message": error.message,
    }
