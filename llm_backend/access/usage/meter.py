"""Meter: the usage of one request, counted wherever it arises, for its billing owner."""

from collections.abc import Awaitable, Callable

from llm_backend.access.authentication.principal import BillingOwner, fairness_key
from llm_backend.access.usage.estimate import ESTIMATED_BYTES_PER_TOKEN
from llm_backend.access.usage.ledger import Ledger
from llm_backend.backends.base import Usage
from llm_backend.store.administration import Tokens, UsageKey

ESTIMATED = "estimated"  # detail of estimated tokens


class RequestMeter:
    """Counts one request, including background work that continues after its answer. It is passed
    down from the request: `ApiRequest.meter`, `LocalModel.meter`, `ToolContext.meter`.

    Usage counts under `model` until a target of a route is chosen. Before a target answers,
    `reserve_target` is awaited: it reserves from that target's limits, and may refuse.
    `check_model` raises `Forbidden` for a model that the caller may not use.
    """

    __slots__ = (
        "_caller", "_check_model", "_detail", "_is_batch", "_kind", "_ledger", "_reserve_target",
        "_target", "_tier", "is_deferred", "is_relayed", "model", "tokens", "was_abandoned",
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
        reserve_target: Callable[[str], Awaitable[None]] | None = None,
        check_model: Callable[[str], object] | None = None,
    ) -> None:
        self._ledger = ledger
        self._caller = caller
        self._kind = kind
        self.model = model
        self._target = None if is_route else model
        self._tier = service_tier
        self._is_batch = is_batch
        self._detail = detail
        self._reserve_target = reserve_target
        self._check_model = check_model
        self.is_relayed = False  # True once the request goes to an upstream
        self.was_abandoned = False  # True if the client left after an upstream had its request
        self.is_deferred = False  # True if an upstream reports the usage after its answer
        self.tokens: int | None = None  # counted so far; None: no report yet

    @property
    def fairness_key(self) -> str:
        """Key of the caller in fair queues."""
        return fairness_key(self._caller)

    @property
    def is_begun(self) -> bool:
        """True if work on the request has begun, even if no answer has begun."""
        return self.was_abandoned or self.tokens is not None

    async def switch_model(self, model: str) -> None:
        """Switches to the model that is about to answer: its price and its limits apply. Raises
        `RateLimited` if its limits do not allow the request."""
        if model == self._target:
            return
        if self._reserve_target is not None:
            await self._reserve_target(model)
        self._target = self.model = model

    def check_model(self, model: str) -> None:
        """Checks a further model that the request uses without naming its id. Raises `Forbidden`
        and `QuotaExceeded`."""
        if self._check_model is not None:
            self._check_model(model)

    def mark_relayed(self) -> None:
        """Marks that the request goes to an upstream, whether or not that reports its tokens."""
        self.is_relayed = True

    def mark_abandoned(self) -> None:
        """Marks that an upstream has the request, though its client disconnected before the
        answer."""
        self.was_abandoned = self.is_relayed = True

    def defer_usage(self) -> UsageKey:
        """Marks the usage as deferred, and returns the key to count it under later."""
        self.is_deferred = True
        return self._key(self._detail)

    def set_detail(self, detail: str) -> None:
        """Sets the detail of a request that was not known from its head."""
        self._detail = detail

    def count_request(self, units: int = 0) -> None:
        """Counts the answered request; `units` are its units besides tokens."""
        self._ledger.add(self._key(self._detail), requests=1, units=units)

    def count_units(self, units: int) -> None:
        """Counts units of something other than tokens; the request itself is counted elsewhere."""
        self._ledger.add(self._key(self._detail), units=units)

    def count_tokens(self, tokens: Tokens) -> None:
        """Counts tokens."""
        self._add(self._detail, tokens)

    def count_answer(self, usage: Usage) -> None:
        """Counts the tokens of a model's answer."""
        tokens = Tokens(
            input_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.completion_tokens,
            input_image_tokens=usage.image_tokens,
            input_audio_tokens=usage.audio_tokens,
            cached_image_tokens=usage.cached_image_tokens,
            cached_audio_tokens=usage.cached_audio_tokens,
        )
        self.count_tokens(tokens.normalize())

    def count_estimate(self, *, input_bytes: int, output_bytes: int) -> tuple[int, int]:
        """Counts tokens estimated from the bytes of text, and returns how many."""
        input_tokens = -(-input_bytes // ESTIMATED_BYTES_PER_TOKEN)
        output_tokens = -(-output_bytes // ESTIMATED_BYTES_PER_TOKEN)
        self._add(ESTIMATED, Tokens(input_tokens=input_tokens, output_tokens=output_tokens))
        return input_tokens, output_tokens

    def count_embedding(self, model: str, tokens: int) -> None:
        """Counts the input tokens of an embedding model; they do not count as tokens of the
        request's own model."""
        key = self._key("")._replace(kind="embeddings", model=model)
        self._ledger.add(key, tokens=Tokens(input_tokens=tokens))

    def count_images(self, model: str, images: int) -> None:
        """Counts images that a model drew for a request to another model."""
        key = self._key("")._replace(kind="image.generation", model=model)
        self._ledger.add(key, units=images)

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
