"""What one request has taken of the limits that hold for it."""

from collections.abc import Mapping

from llm_backend.access.authentication.policy import Project
from llm_backend.access.limits.rate_limits import RateLimits, Reservation
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.usage.estimate import tokens_of
from llm_backend.contract.request import ApiRequest
from llm_backend.offload import offload

__all__ = ["RateLimitReservation"]


class RateLimitReservation:
    """One request on its way: held to the limits of its key and of the model that it names, and
    where that is a route to those of the step that is about to answer. `headers` tell of them."""

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
        self._request = request  # None: of what it will take nothing can be said
        self._taken: Reservation | None = None
        self._step: Reservation | None = None
        self.headers: Mapping[str, str] = {}

    async def begin(self) -> None:
        """Raises `RateLimited`, and has taken nothing then."""
        allowances = self._plan.allowances
        self._taken = await self._limits.take(allowances, await offload(self._tokens))
        self.headers = self._limits.headers(allowances)

    async def turn_to(self, model: str) -> None:
        """This model is about to answer; one that has not answered gives its tokens back. Raises
        `RateLimited`."""
        if self._step is not None:
            self._step.correct(0)
            self._step = None
        allowances = self._plans.of_step(self._project, model)
        if allowances:
            self._step = await self._limits.take(allowances, await offload(self._tokens))
            self.headers = self._limits.headers([*self._plan.allowances, *allowances])

    def release_request(self) -> None:
        """The request has ended: tasks that it began keep this in their context, and run on."""
        self._request = None

    def correct(self, tokens: int) -> None:
        """So many tokens were used in truth."""
        for taken in (self._taken, self._step):
            if taken is not None:
                taken.correct(tokens)

    def charge(self, tokens: int) -> None:
        """So many tokens more were used than anybody has asked for."""
        for taken in (self._taken, self._step):
            if taken is not None:
                self._limits.charge(taken.allowances, tokens)

    def _tokens(self) -> int:
        return 0 if self._request is None else tokens_of(self._request)
