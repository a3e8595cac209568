"""An answer on its way out: what is told with it, how it ended, and what its end says."""

import re
from collections.abc import Awaitable

from starlette.types import Message, Send

from llm_backend.access.limits.reservation import RateLimitReservation
from llm_backend.access.usage.meter import RequestMeter
from llm_backend.access.usage.usage_parser import UsageTail
from llm_backend.store.administration import Tokens

__all__ = ["MeteredResponse"]


class MeteredResponse:
    """Sends an answer on, with what its passage tells by then in the place of other headers of the
    same names. `texts` finds what is said in an upstream's stream; others count themselves."""

    def __init__(
        self,
        send: Send,
        reservation: RateLimitReservation,
        meter: RequestMeter,
        texts: re.Pattern[bytes] | None = None,
    ) -> None:
        self._send = send
        self._reservation = reservation
        self._meter = meter
        self._texts = texts
        self._status = 0
        self._tail: UsageTail | None = None

    @property
    def is_good(self) -> bool:
        """Whether it is an answer and no error."""
        return 200 <= self._status < 300

    def usage(self) -> Tokens | None:
        """The tokens that its end tells."""
        return self._tail.usage() if self._tail else None

    def said_bytes(self) -> int:
        """How much text has been sent on, as far as it can be told from other things."""
        return self._tail.said_bytes() if self._tail else 0

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
            coding, self._texts if is_stream and self._meter.is_relayed else None
        )
        told = self._reservation.headers
        if not told:
            return start
        headers = [(name.encode(), value.encode()) for name, value in told.items()]
        own = {name for name, _ in headers}
        kept = [pair for pair in start["headers"] if pair[0].lower() not in own]
        return {**start, "headers": [*kept, *headers]}
