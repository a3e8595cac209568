"""Rate limit reservation of one request."""

from collections.abc import Mapping

from llm_backend.access.authentication.policy import Project
from llm_backend.access.limits.rate_limits import RateLimits, Reservation
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.usage.estimate import tokens_of
from llm_backend.contract.request import ApiRequest
from llm_backend.offload import offload

__all__ = ["RateLimitReservation"]


class RateLimitReservation:
    """Holds one request to the limits of its key and of its model. If the model is a route, also to
    those of the step that is about to answer. `headers` are its rate limit headers."""

    __slots__ = ("_limits", "_plan", "_plans", "_project", "_request", "_step", "_taken", "headers")

    def __init__(
        self,
        limits: RateLimits,
        plans: RequestPolicies,
        project: Project,
        plan: RequestPolicy,
        request: ApiRequest | None = None,
    ) -> None:
        self._limits = limits
        self._plans = plans
        self._project = project
        self._plan = plan
        self._request = request  # None: its tokens cannot be estimated
        self._taken: Reservation | None = None
        self._step: Reservation | None = None
        self.headers: Mapping[str, str] = {}

    async def begin(self) -> None:
        """Reserves a request and its estimated tokens. Raises `RateLimited`, and has taken nothing
        then."""
        allowances = self._plan.allowances
        self._taken = await self._limits.take(allowances, await offload(self._tokens))
        self.headers = self._limits.headers(allowances)

    async def switch_step(self, model: str) -> None:
        """Reserves for the step that is about to answer, and returns the reservation of a step that
        failed. Raises `RateLimited`."""
        if self._step is not None:
            self._step.correct(0)
            self._step = None
        allowances = self._plans.of_step(self._project, model)
        if allowances:
            self._step = await self._limits.take(allowances, await offload(self._tokens))
            self.headers = self._limits.headers([*self._plan.allowances, *allowances])

    def release_request(self) -> None:
        """Drops the request: background tasks keep this object alive in their context."""
        self._request = None

    def correct(self, tokens: int) -> None:
        """Replaces the estimated tokens with the tokens that were used."""
        for taken in (self._taken, self._step):
            if taken is not None:
                taken.correct(tokens)

    def charge(self, tokens: int) -> None:
        """Counts tokens that were used beyond the reservation."""
        for taken in (self._taken, self._step):
            if taken is not None:
                self._limits.charge(taken.allowances, tokens)

    def _tokens(self) -> int:
        return 0 if self._request is None else tokens_of(self._request)
