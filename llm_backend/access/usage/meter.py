"""Meter: the usage of one request, counted wherever it arises, for its billing owner."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llm_backend.access.authentication.principal import BillingOwner
from llm_backend.access.usage.estimate import BYTES_A_TOKEN
from llm_backend.access.usage.ledger import Ledger
from llm_backend.backends.base import Usage
from llm_backend.store.administration import Tokens, UsageKey

__all__ = [
    "METER",
    "RequestMeter",
    "answer_metered",
    "count_embedding",
    "count_estimated",
    "count_tokens",
    "expects_upstream_usage",
    "mark_sent",
    "metering",
    "switch_model",
]

ESTIMATED = "estimated"  # detail of estimated tokens


class RequestMeter:
    """Counts one request, including background work that continues after its answer.

    Usage counts under `model` until a step of a route is chosen. Before a step answers, `turn`
    is awaited: it reserves from that step's limits, and may refuse.
    """

    __slots__ = (
        "_caller", "_detail", "_is_batch", "_kind", "_ledger", "_step", "_tier", "_turn",
        "is_deferred", "is_relayed", "model", "tokens", "was_sent",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        caller: BillingOwner,
        *,
        kind: str,
        model: str = "",
        is_route: bool = False,
        service_tier: str = "default",
        is_batch: bool = False,
        detail: str = "",
        turn: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._kind = kind
        self.model = model
        self._step = None if is_route else model
        self._tier = service_tier
        self._is_batch = is_batch
        self._detail = detail
        self._turn = turn
        self.is_relayed = False  # True if an upstream answers and reports its tokens
        self.was_sent = False  # True if an upstream got the request before its client disconnected
        self.is_deferred = False  # True if an upstream reports the usage after its answer
        self.tokens: int | None = None  # counted so far; None: no report yet

    @property
    def is_begun(self) -> bool:
        """True if work on the request has begun, even if no answer has begun."""
        return self.was_sent or self.tokens is not None

    async def answered_by(self, model: str) -> None:
        """Makes this model the one that answers. Raises `RateLimited` if that model's limits do not
        allow the request."""
        if model == self._step:
            return
        if self._turn is not None:
            await self._turn(model)
        self._step = self.model = model

    def answered(self, units: int = 0) -> None:
        """Counts the answered request; `units` are its units besides tokens."""
        self._ledger.add(self._key(self._detail), requests=1, units=units)

    def used(self, tokens: Tokens) -> None:
        """Adds tokens."""
        self._add(self._detail, tokens)

    def estimated(self, *, input_bytes: int, output_bytes: int) -> tuple[int, int]:
        """Adds tokens estimated from the bytes of text, and returns how many."""
        given, said = -(-input_bytes // BYTES_A_TOKEN), -(-output_bytes // BYTES_A_TOKEN)
        self._add(ESTIMATED, Tokens(input_tokens=given, output_tokens=said))
        return given, said

    def expects(self) -> UsageKey:
        """Marks the usage as deferred, and returns the key to count it under later."""
        self.is_deferred = True
        return self._key(self._detail)

    def embedded(self, model: str, tokens: int) -> None:
        """Adds tokens of an embedding model; they do not count as tokens of the request's model."""
        key = self._key("")._replace(kind="embeddings", model=model)
        self._ledger.add(key, tokens=Tokens(input_tokens=tokens))

    def _add(self, detail: str, tokens: Tokens) -> None:
        self.tokens = (self.tokens or 0) + tokens.input_tokens + tokens.output_tokens
        self._ledger.add(self._key(detail), tokens=tokens)

    def _key(self, detail: str) -> UsageKey:
        caller = self._caller
        return UsageKey(
            self._ledger.minute_at(),
            self._kind,
            caller.project_id,
            caller.key_id or "",
            caller.user_id or "",
            self.model,
            self._tier,
            self._is_batch,
            detail,
        )


# A context variable: local models, upstreams and background tasks find the meter of their request
# without passing it along.
METER: ContextVar[RequestMeter | None] = ContextVar("meter", default=None)


@contextmanager
def metering(meter: RequestMeter) -> Iterator[None]:
    """Sets the meter of the current context, for background work for instance."""
    before = METER.set(meter)
    try:
        yield
    finally:
        METER.reset(before)


def count_tokens(tokens: Tokens) -> None:
    """Counts tokens for the current request; does nothing in the server's own work."""
    meter = METER.get()
    if meter is not None:
        meter.used(tokens)


def answer_metered(usage: Usage) -> None:
    """Counts the tokens of a local model's answer for the current request."""
    tokens = Tokens(
        input_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        input_picture_tokens=usage.picture_tokens,
        input_sound_tokens=usage.sound_tokens,
        cached_picture_tokens=usage.cached_picture_tokens,
        cached_sound_tokens=usage.cached_sound_tokens,
    )
    count_tokens(tokens.normalize())


def count_estimated(*, input_bytes: int, output_bytes: int) -> None:
    """Counts tokens estimated from the bytes of text."""
    meter = METER.get()
    if meter is not None:
        meter.estimated(input_bytes=input_bytes, output_bytes=output_bytes)


def count_embedding(model: str, *, tokens: int) -> None:
    """Counts the tokens that an embedding model has read for the current request."""
    meter = METER.get()
    if meter is not None:
        meter.embedded(model, tokens)


async def switch_model(model: str) -> None:
    """Makes this model the one that answers the current request: its price and its limits apply.
    Raises `RateLimited`."""
    meter = METER.get()
    if meter is not None:
        await meter.answered_by(model)


def expects_upstream_usage() -> bool:
    """Marks that an upstream answers the current request. Returns True if its usage is counted."""
    meter = METER.get()
    if meter is None:
        return False
    meter.is_relayed = True
    return True


def mark_sent() -> None:
    """Marks that an upstream has a request whose client disconnected before the answer."""
    meter = METER.get()
    if meter is not None:
        meter.was_sent = meter.is_relayed = True
