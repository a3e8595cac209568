"""Observer of the bytes of a relayed response (pure)."""

import re

from llm_backend import exact_json
from llm_backend.controllers.relay.answer_observer import OBSERVED_BYTES, AnswerObserver
from llm_backend.errors import UpstreamFailed
from llm_backend.json_types import JsonMapping
from llm_backend.sse import Decoder

# Quotes inside JSON strings are escaped, so no string can match this.
_HAS_RESPONSE = re.compile(r'"response"\s*:')
_UNDER_WAY = frozenset({"queued", "in_progress"})


class ResponseObserver(AnswerObserver):
    """Parses the latest response object of an answer. An event of more than `limit_bytes` ends the
    parsing; a stream may be longer."""

    limits_streams = False

    def __init__(self, limit_bytes: int = OBSERVED_BYTES) -> None:
        super().__init__(limit_bytes)
        self._events = Decoder(limit_bytes)
        self._latest: JsonMapping | None = None

    def response(self) -> JsonMapping | None:
        """Returns the latest response object, if it has an id."""
        body = self.body
        response = self._latest if body is None else exact_json.parse_object(body)
        return response if response is not None and isinstance(response.get("id"), str) else None

    def _feed_events(self, chunk: bytes) -> None:
        try:
            for event in self._events.feed(chunk):
                if _HAS_RESPONSE.search(event.data):
                    self._record(exact_json.parse_object(event.data))
        except UpstreamFailed:
            self.is_overlong = True

    def _record(self, event: JsonMapping | None) -> None:
        response = None if event is None else event.get("response")
        if isinstance(response, dict):
            self._latest = response


def is_under_way(response: JsonMapping) -> bool:
    """True if the response has not ended."""
    return response.get("status") in _UNDER_WAY
