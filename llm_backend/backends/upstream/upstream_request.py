"""Request to the upstream pool, before an upstream is chosen."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from llm_backend.backends.upstream.config import WireProtocol
from llm_backend.backends.upstream.headers import Headers

Body = bytes | AsyncIterator[bytes]


def ignore(*_: object) -> None:
    """Default of the callbacks."""


@dataclass(frozen=True, kw_only=True)
class UpstreamRequest:
    """One request to the upstreams. `operation` is its id and tag. `model` is the model's name at
    the upstream. `upstream` is the one that a route names. `wire` is the wire protocol if it
    differs from the operation's. `streams`: events are requested (None: unknown). `has_fallback`:
    another backend answers if no upstream can. `is_at_most_once`: the client's request has an
    `Idempotency-Key`, so no other backend gets it once it may be processed. The fair queue serves
    requests round-robin by `fairness_key`. `on_abandoned` is called if the request is cancelled
    after an upstream has got it. `on_attempt` is called with the name of an upstream before the
    request is sent there, and with None when this attempt has failed."""

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
    has_fallback: bool = False
    is_at_most_once: bool = False
    fairness_key: str = ""
    on_abandoned: Callable[[], None] = ignore
    on_attempt: Callable[[str | None], None] = ignore
