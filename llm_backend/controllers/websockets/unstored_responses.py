"""Responses with `store: false` that a client continues on the connection that answered them."""

from collections import OrderedDict
from typing import Any, NamedTuple

from llm_backend import exact_json
from llm_backend.controllers.internal_requests import json_body
from llm_backend.json_types import JsonMapping, JsonObject


class _Unstored(NamedTuple):
    items: bytes  # its input, then its output, as a JSON list
    previous_id: str | None  # the stored response that it continues


class UnstoredResponses:
    """The latest responses of a connection that were not stored, so that `previous_response_id` can
    name them. Their items take at most `limit_bytes`; the oldest are forgotten first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._responses: OrderedDict[str, _Unstored] = OrderedDict()
        self._bytes = 0

    def may_continue(self, body: bytes) -> bool:
        """True if the request may continue one of them: then it must be expanded."""
        return bool(self._responses) and b'"previous_response_id"' in body

    def expand(self, body: bytes) -> bytes:
        """Returns a request that continues one of these responses with the items of that response
        before its input; another request as it is."""
        fields: JsonObject = exact_json.loads(body)
        previous = self._responses.get(str(fields.get("previous_response_id")))
        if previous is None:
            return body
        items = exact_json.loads(previous.items) + _input_items(fields.get("input"))
        return json_body({**fields, "previous_response_id": previous.previous_id, "input": items})

    def add(self, body: bytes, event: str) -> None:
        """Adds the response in its last event, to the expanded request `body`. A malformed response
        of an upstream is left out."""
        request, response = exact_json.loads(body), exact_json.loads(event).get("response")
        if not (isinstance(response, dict) and isinstance(response.get("id"), str)):
            return
        if not isinstance(output := response.get("output"), list):
            return
        added = [item for item in output if isinstance(item, dict) and _is_readable(item)]
        items = exact_json.dumps(_input_items(request.get("input")) + added)
        replaced = self._responses.pop(response["id"], None)
        self._responses[response["id"]] = _Unstored(items, request.get("previous_response_id"))
        self._bytes += len(items) - (len(replaced.items) if replaced else 0)
        while self._bytes > self._limit_bytes:
            _, oldest = self._responses.popitem(last=False)
            self._bytes -= len(oldest.items)


def is_unstored(fields: JsonMapping) -> bool:
    """True for a request whose response is kept nowhere else."""
    return fields.get("store") is False and fields.get("conversation") is None


def _input_items(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": value}]
    return value if isinstance(value, list) else []


def _is_readable(item: JsonMapping) -> bool:
    """False for reasoning that is kept by its id alone."""
    return item.get("type") != "reasoning" or bool(
        item.get("encrypted_content") or item.get("content")
    )
