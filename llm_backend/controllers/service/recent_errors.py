"""Ring buffer of recent error responses, listed for the API key that received them."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

__all__ = ["AnsweredError", "RecentErrors", "list_errors"]

CAPACITY = 200  # each under a kilobyte


@dataclass(frozen=True, kw_only=True)
class AnsweredError:
    """One error as its client saw it; `at` in Unix seconds, `key_id` of the request."""

    at: int
    request_id: str
    operation: str
    status: int
    code: str | None
    message: str
    key_id: str | None


class RecentErrors:
    """Ring buffer of the last errors of this process; older ones are in the log."""

    def __init__(self) -> None:
        self._errors: deque[AnsweredError] = deque(maxlen=CAPACITY)

    def add(self, error: AnsweredError) -> None:
        """Adds an error, and drops the oldest if full."""
        self._errors.append(error)

    def of(self, key_id: str | None) -> list[AnsweredError]:
        """Returns the errors of a key's requests, the latest first."""
        return [error for error in reversed(self._errors) if error.key_id == key_id]


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
