"""JSON responses, encoded by orjson."""

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.json_types import JsonMapping
from llm_backend.store import Page
from llm_backend.store.keyset_pages import Identified

T = TypeVar("T", bound=Identified)


class JsonResponse(Response):
    """A response whose content is a JSON value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return exact_json.dumps(content)


def list_response(page: Page[T], render: Callable[[T], JsonMapping]) -> Response:
    """Returns one page of a list as the document's list object, of rendered items."""
    return JsonResponse(
        {
            "object": "list",
            "data": [render(item) for item in page.items],
            "first_id": page.first_id or "",  # the document wants a string on an empty page too
            "last_id": page.last_id or "",
            "has_more": page.has_more,
        }
    )


def deleted_response(id: str, object: str) -> Response:
    """Returns the document's answer to a deletion."""
    return JsonResponse({"id": id, "object": object, "deleted": True})
