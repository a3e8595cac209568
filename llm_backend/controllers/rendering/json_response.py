"""JSON responses, encoded by orjson."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store import Page


class JsonResponse(Response):
    """A response whose content is a JSON value."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return exact_json.dumps(content)


def list_object(page: Page[Any], data: Sequence[JsonMapping]) -> JsonObject:
    """Returns one page of a list as the document's list object."""
    return {
        "object": "list",
        "data": data,
        "first_id": page.first_id or "",  # the document wants a string on an empty page too
        "last_id": page.last_id or "",
        "has_more": page.has_more,
    }
