"""Observer of a relayed response's bytes: one JSON body, or a stream of events (pure)."""

import re

from llm_backend import exact_json
from llm_backend.errors import UpstreamFailed
from llm_backend.json_types import JsonMapping
from llm_backend.sse import Decoder

_OBSERVED_BYTES = 16 * 1024 * 1024
_BLANK = b" \t\r\n\xef\xbb\xbf"
# Quotes inside JSON strings are escaped, so no string can match this.
_HAS_RESPONSE = re.compile(r'"response"\s*:')
_UNDER_WAY = frozenset({"queued", "in_progress"})


class ResponseObserver:
    """Parses the latest response object from bytes in any pieces; never raises.

    Buffers at most `limit_bytes` of a body or an event: a longer one is ignored.
    """

    def __init__(self, limit_bytes: int = _OBSERVED_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._body = bytearray()
        self._events: Decoder | None = None
        self._latest: JsonMapping | None = None
        self._is_overlong = False

    @property
    def is_stream(self) -> bool:
        """True if the answer is an event stream."""
        return self._events is not None

    def feed(self, chunk: bytes) -> None:
        """Parses the next bytes of the answer."""
        if self._is_overlong:
            return
        if self._events is not None:
            self._feed_events(self._events, chunk)
            return
        self._body += chunk
        start = bytes(self._body[:64]).lstrip(_BLANK)
        if start and not start.startswith(b"{"):
            self._events = Decoder(self._limit_bytes)
            self._feed_events(self._events, bytes(self._body))
            self._body.clear()
        elif len(self._body) > self._limit_bytes:
            self._is_overlong = True
            self._body.clear()

    def response(self) -> JsonMapping | None:
        """Returns the latest response object, if it has an id."""
        response = self._latest if self.is_stream else exact_json.parse_object(self._body)
        return response if response is not None and isinstance(response.get("id"), str) else None

    def _feed_events(self, events: Decoder, chunk: bytes) -> None:
        try:
            for event in events.feed(chunk):
                if _HAS_RESPONSE.search(event.data):
                    self._record(exact_json.parse_object(event.data))
        except UpstreamFailed:
            self._is_overlong = True

    def _record(self, event: JsonMapping | None) -> None:
        response = None if event is None else event.get("response")
        if isinstance(response, dict):
            self._latest = response


def is_under_way(response: JsonMapping) -> bool:
    """True if the response has not ended."""
    return response.get("status") in _UNDER_WAY
