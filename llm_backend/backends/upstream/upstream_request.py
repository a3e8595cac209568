"""What is asked of the upstreams."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from llm_backend.backends.upstream.config import WireProtocol
from llm_backend.backends.upstream.headers import Headers

__all__ = ["Body", "UpstreamRequest"]

Body = bytes | AsyncIterator[bytes]


@dataclass(frozen=True, kw_only=True)
class UpstreamRequest:
    """One request on its way to an upstream: `operation` is its id and tag, `model` what the
    upstream is to hear, `upstream` the one that a route names, `wire` what is spoken where that is
    not the operation's. `streams` is whether events are asked for, None where that is not known.
    `has_other` where somebody else answers if nobody here can. `who` asks:
    those who wait take turns. `on_left` is called where it is cancelled and an upstream has it.
    """

    method: str
    path: str
    query: bytes
    headers: Headers
    body: Body
    operation: Sequence[str] = ()
    model: str | None = None
    upstream: str | None = None
    wire: WireProtocol | None = None
    streams: bool | None = None
    has_other: bool = False
    who: str = ""
    on_left: Callable[[], None] = lambda: None
