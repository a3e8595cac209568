"""JSON messages of a WebSocket."""

import orjson

from llm_backend import exact_json
from llm_backend.contract.body import BodyLimits, check_bounds
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject


def parse_message(message: str | bytes, limits: BodyLimits) -> JsonObject:
    """Returns the object of a message. Raises `InvalidRequest` if it is none, and `TooLarge`."""
    check_bounds(message.encode() if isinstance(message, str) else message, limits)
    try:
        event = exact_json.loads(message)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The message is not JSON: {error}", code="invalid_json") from error
    if not isinstance(event, dict):
        raise InvalidRequest("A message is a JSON object.", code="invalid_type")
    return event
