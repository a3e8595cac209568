"""Rate limit reservation of one request."""

from collections.abc import Mapping

from llm_backend.access.authentication.policy import Project
from llm_backend.access.limits.rate_limits import RateLimits, WindowReservation
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.usage.estimate import tokens_of
from llm_backend.contract.request import ApiRequest
from llm_backend.offload import offload


class RequestReservation:
    """Applies to a request the rate limits of its key and model and, if the model is a route, of
    the target that is about to answer. `headers` are the request's rate limit headers."""

    __slots__ = (
        "_limits", "_policies", "_policy", "_project", "_request", "_reservation",
        "_target_reservation", "headers",
    )  # fmt: skip

    def __init__(
        self,
        limits: RateLimits,
        policies: RequestPolicies,
        project: Project,
        policy: RequestPolicy,
        request: ApiRequest | None = None,
    ) -> None:
        self._limits = limits
        self._policies = policies
        self._project = project
        self._policy = policy
        self._request = request  # None: its tokens cannot be estimated
        self._reservation: WindowReservation | None = None
        self._target_reservation: WindowReservation | None = None
        self.headers: Mapping[str, str] = {}

    async def reserve(self) -> None:
        """Reserves a request and its estimated tokens. Raises `RateLimited` (429), and
        reserves nothing then."""
        windows = self._policy.rate_windows
        self._reservation = await self._limits.reserve(windows, await offload(self._tokens))
        self.headers = self._limits.headers(windows)

    async def switch_target(self, model: str) -> None:
        """Cancels the reservation for a target that failed, if there is one, and reserves for the
        target that is about to answer. Raises `RateLimited` (429), and reserves nothing for the
        target then."""
        if self._target_reservation is not None:
            self._target_reservation.cancel()
            self._target_reservation = None
            self.headers = self._limits.headers(self._policy.rate_windows)
        windows = self._policies.target_windows(self._project, model)
        if windows:
            self._target_reservation = await self._limits.reserve(
                windows, await offload(self._tokens)
            )
            self.headers = self._limits.headers([*self._policy.rate_windows, *windows])

    def release_request(self) -> None:
        """Drops the request: background tasks keep this object alive in their context."""
        self._request = None

    def correct(self, tokens: int) -> None:
        """Replaces the estimated tokens with the tokens that were used."""
        for reservation in (self._reservation, self._target_reservation):
            if reservation is not None:
                reservation.correct(tokens)

    def charge(self, tokens: int) -> None:
        """Counts tokens that were used beyond the reservation."""
        for reservation in (self._reservation, self._target_reservation):
            if reservation is not None:
                self._limits.charge(reservation.windows, tokens)

    def _tokens(self) -> int:
        return 0 if self._request is None else tokens_of(self._request)
