"""What one request uses, counted wherever it is used, for whoever asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from llm_backend.access.caller import Caller
from llm_backend.access.ledger import Ledger
from llm_backend.store.administration import UsageKey

__all__ = ["METER", "Meter", "metered", "metering"]


class Meter:
    """Counts one request. What goes on behind its answer counts for it, too."""

    __slots__ = ("_caller", "_detail", "_is_batch", "_kind", "_ledger", "_model", "_tier", "tokens")

    def __init__(
        self,
        ledger: Ledger,
        caller: Caller,
        *,
        kind: str,
        model: str = "",
        service_tier: str = "default",
        is_batch: bool = False,
        detail: str = "",
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._kind = kind
        self._model = model
        self._tier = service_tier
        self._is_batch = is_batch
        self._detail = detail
        self.tokens: int | None = None  # counted so far; None: nobody has said

    def answered(self, units: int = 0) -> None:
        """It was answered; `units` are what is counted besides tokens."""
        self._ledger.add(self._key(), requests=1, units=units)

    def used(self, *, input_tokens: int, cached_tokens: int = 0, output_tokens: int = 0) -> None:
        """So many tokens more; the cached ones are among the input."""
        self.tokens = (self.tokens or 0) + input_tokens + output_tokens
        self._ledger.add(
            self._key(),
            input_tokens=input_tokens,
            cached_tokens=cached_tokens,
            output_tokens=output_tokens,
        )

    def _key(self) -> UsageKey:
        caller = self._caller
        return UsageKey(
            self._ledger.minute_at(),
            self._kind,
            caller.project_id,
            caller.key_id or "",
            caller.user_id or "",
            self._model,
            self._tier,
            self._is_batch,
            self._detail,
        )


# A local model, an upstream and what is done behind an answer all count for the request in whose
# context they run, and need not be handed it.
METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metering(meter: Meter) -> Iterator[None]:
    """What is used within counts by this meter: work that goes on without its request, say."""
    before = METER.set(meter)
    try:
        yield
    finally:
        METER.reset(before)


def metered(*, input_tokens: int, cached_tokens: int = 0, output_tokens: int = 0) -> None:
    """Counts tokens for the request that is being answered; none is, in a server's own work."""
    meter = METER.get()
    if meter is not None:
        meter.used(
            input_tokens=input_tokens, cached_tokens=cached_tokens, output_tokens=output_tokens
        )
