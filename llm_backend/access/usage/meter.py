"""What one request uses, counted wherever it is used, for whoever asked."""

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

ESTIMATED = "estimated"  # the detail of tokens that nobody has told


class RequestMeter:
    """Counts one request. What goes on behind its answer counts for it, too.

    It asks `model` as long as no step of a route says otherwise, which `turn` is told of first:
    whether the request may go on so.
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
        self.is_relayed = False  # whether an upstream answers, with what it tells of its tokens
        self.was_sent = False  # whether an upstream has it, and its client may have left since
        self.is_deferred = False  # what it takes, as an upstream goes on with it
        self.tokens: int | None = None  # counted so far; None: nobody has said

    @property
    def is_begun(self) -> bool:
        """Whether somebody has begun to work on it, also if no answer has begun."""
        return self.was_sent or self.tokens is not None

    async def answered_by(self, model: str) -> None:
        """From here on it asks this model. Raises `RateLimited` where that one's limits do not
        allow it."""
        if model == self._step:
            return
        if self._turn is not None:
            await self._turn(model)
        self._step = self.model = model

    def answered(self, units: int = 0) -> None:
        """It was answered; `units` are what is counted besides tokens."""
        self._ledger.add(self._key(self._detail), requests=1, units=units)

    def used(self, tokens: Tokens) -> None:
        """So many tokens more."""
        self._add(self._detail, tokens)

    def estimated(self, *, input_bytes: int, output_bytes: int) -> tuple[int, int]:
        """So many tokens more, about: what was said, and nobody tells its tokens."""
        given, said = -(-input_bytes // BYTES_A_TOKEN), -(-output_bytes // BYTES_A_TOKEN)
        self._add(ESTIMATED, Tokens(input_tokens=given, output_tokens=said))
        return given, said

    def expects(self) -> UsageKey:
        """What it takes is told after its answer; what counts under this key then."""
        self.is_deferred = True
        return self._key(self._detail)

    def embedded(self, model: str, tokens: int) -> None:
        """Tokens of another model, which has made vectors for it; they are no tokens of its own."""
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


# A local model, an upstream and what is done behind an answer all count for the request in whose
# context they run, and need not be handed it.
METER: ContextVar[RequestMeter | None] = ContextVar("meter", default=None)


@contextmanager
def metering(meter: RequestMeter) -> Iterator[None]:
    """What is used within counts by this meter: work that goes on without its request, say."""
    before = METER.set(meter)
    try:
        yield
    finally:
        METER.reset(before)


def count_tokens(tokens: Tokens) -> None:
    """Counts tokens for the request that is being answered; none is, in a server's own work."""
    meter = METER.get()
    if meter is not None:
        meter.used(tokens)


def answer_metered(usage: Usage) -> None:
    """Counts the tokens of an answer for the request that it is for."""
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
    """Counts about as many tokens as so much text has."""
    meter = METER.get()
    if meter is not None:
        meter.estimated(input_bytes=input_bytes, output_bytes=output_bytes)


def count_embedding(model: str, *, tokens: int) -> None:
    """Counts what a model for embeddings has read, for whoever it is done for."""
    meter = METER.get()
    if meter is not None:
        meter.embedded(model, tokens)


async def switch_model(model: str) -> None:
    """The request that is being answered is so by this model: its price and its limits hold.
    Raises `RateLimited`."""
    meter = METER.get()
    if meter is not None:
        await meter.answered_by(model)


def expects_upstream_usage() -> bool:
    """An upstream answers the request, and may tell what it took; whether anybody counts that."""
    meter = METER.get()
    if meter is None:
        return False
    meter.is_relayed = True
    return True


def mark_sent() -> None:
    """An upstream has the request, whose client leaves before its answer begins."""
    meter = METER.get()
    if meter is not None:
        meter.was_sent = meter.is_relayed = True
