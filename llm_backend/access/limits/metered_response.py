"""Metered response: adds rate limit headers, records the status, and reads usage at the end."""

import re
from collections.abc import Awaitable

from starlette.types import Message, Send

from llm_backend.access.limits.reservation import RequestReservation
from llm_backend.access.usage.meter import RequestMeter
from llm_backend.access.usage.usage_parser import UsageTail
from llm_backend.store.administration import Tokens


class MeteredResponse:
    """Sends an answer on. The rate limit headers of its reservation replace the answer's headers of
    the same names. `text_pattern` finds the text in an upstream's stream; local models count their
    own tokens."""

    def __init__(
        self,
        send: Send,
        reservation: RequestReservation,
        meter: RequestMeter,
        text_pattern: re.Pattern[bytes] | None = None,
    ) -> None:
        self._send = send
        self._reservation = reservation
        self._meter = meter
        self._text_pattern = text_pattern
        self._status = 0
        self._tail: UsageTail | None = None

    @property
    def is_good(self) -> bool:
        """True if the status is a 2xx."""
        return 200 <= self._status < 300

    def usage(self) -> Tokens | None:
        """Returns the tokens that the end of the answer reports."""
        return self._tail.usage() if self._tail else None

    def output_text_bytes(self) -> int:
        """Returns the bytes of text that have been sent, as far as text can be recognized."""
        return self._tail.text_bytes() if self._tail else 0

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = self._begin(message)
        elif self._tail is not None and (body := message.get("body")):
            self._tail.feed(body)
        return self._send(message)

    def _begin(self, start: Message) -> Message:
        self._status = start["status"]
        coding, is_stream = None, False
        for name, value in start["headers"]:
            if name == b"content-encoding":
                coding = value
            elif name == b"content-type":
                is_stream = value.startswith(b"text/event-stream")
        self._tail = UsageTail(
            coding, self._text_pattern if is_stream and self._meter.is_relayed else None
        )
        rate_headers = self._reservation.headers
        if not rate_headers:
            return start
        headers = [(name.encode(), value.encode()) for name, value in rate_headers.items()]
        own = {name for name, _ in headers}
        others = [pair for pair in start["headers"] if pair[0].lower() not in own]
        return {**start, "headers": [*others, *headers]}
