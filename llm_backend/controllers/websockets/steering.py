"""Refusal of `response.steer`, which would change a response that is being generated. Pure."""

from collections.abc import Mapping
from typing import Any

from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

_FIELDS = frozenset({"type", "previous_response_id", "input"})
_MESSAGE = (
    "A response is not steered here: it is generated to its end. Cancel it, or send the input with "
    "a `response.create` that has its id as `previous_response_id`."
)


def refuse_steering(event: Mapping[str, Any]) -> JsonObject:
    """Returns the `response.steer.failed` event, which hands the input back.

    Raises `InvalidRequest` for an event with other fields than the SDK's.
    """
    if unknown := sorted(event.keys() - _FIELDS):
        raise InvalidRequest(
            f"`response.steer` has no field `{unknown[0]}`.", param=unknown[0],
            code="unknown_parameter",
        )  # fmt: skip
    response_id, steering_input = event.get("previous_response_id"), event.get("input")
    if not isinstance(response_id, str):
        raise InvalidRequest(
            "`previous_response_id` is the id of the response to steer.",
            param="previous_response_id",
        )
    if not isinstance(steering_input, str | list) or not steering_input:
        raise InvalidRequest("`input` is text, or a list of messages of users.", param="input")
    return {
        "type": "response.steer.failed",
        "sequence_number": 0,
        "error": {
            "type": "invalid_request_error",
            "code": "steering_not_supported",
            "message": _MESSAGE,
        },
        "steer": {"previous_response_id": response_id, "input": steering_input},
    }
