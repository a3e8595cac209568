"""Rate limit reservation of a request whose route changes its target."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_backend.access.authentication.policy import Project
from llm_backend.access.limits.rate_limits import RateLimit, RateLimits
from llm_backend.access.limits.request_policy import RequestPolicies, RequestPolicy
from llm_backend.access.limits.reservation import RequestReservation
from llm_backend.errors import RateLimited
from tests.clock import Clock

LIMITS = {"limited": 7, "exhausted": 0}  # requests per minute by model; others have no limit


def reservation(limits: RateLimits, *, key_requests: int | None = None) -> RequestReservation:
    def windows(_project: Project, model: str) -> Any:
        limit = LIMITS.get(model)
        return () if limit is None else limits.windows(
            [RateLimit(scope=model, unit="requests", limit=limit)]
        )  # fmt: skip

    of_key = () if key_requests is None else limits.windows(
        [RateLimit(scope="key", unit="requests", limit=key_requests)]
    )  # fmt: skip
    return RequestReservation(
        limits,
        cast(RequestPolicies, SimpleNamespace(target_windows=windows)),
        cast(Project, None),
        cast(RequestPolicy, SimpleNamespace(rate_windows=of_key)),
    )


async def test_reservation_drops_the_headers_of_a_failed_target():
    unlimited = reservation(RateLimits(clock=Clock(1_000_000)))
    await unlimited.switch_target("limited")
    of_limited = unlimited.headers

    await unlimited.switch_target("other")

    assert of_limited["x-ratelimit-limit-requests"] == "7"
    assert unlimited.headers == {}


async def test_reservation_keeps_the_headers_of_its_key_when_a_target_fails():
    of_key = reservation(RateLimits(clock=Clock(1_000_000)), key_requests=100)
    await of_key.reserve()
    await of_key.switch_target("limited")
    of_limited = of_key.headers

    with pytest.raises(RateLimited):
        await of_key.switch_target("exhausted")

    assert of_limited["x-ratelimit-limit-requests"] == "7"
    assert of_key.headers["x-ratelimit-limit-requests"] == "100"


async def test_failed_target_gets_its_request_back():
    limits = RateLimits(clock=Clock(1_000_000))
    for _ in range(2 * LIMITS["limited"]):
        await (asked := reservation(limits)).switch_target("limited")
        await asked.switch_target("other")

    await (asked := reservation(limits)).switch_target("limited")

    assert asked.headers["x-ratelimit-remaining-requests"] == str(LIMITS["limited"] - 1)


async def test_reservation_computes_no_headers_for_a_first_target_without_limits():
    of_key = reservation(RateLimits(clock=Clock(1_000_000)), key_requests=100)
    await of_key.reserve()
    reserved = of_key.headers

    await of_key.switch_target("other")

    assert of_key.headers is reserved
