"""Rate limits of requests and tokens, of one server and shared through a database."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from llm_backend.access.limits.rate_limits import RateLimit, RateLimits
from llm_backend.errors import RateLimited, RequestsLimited, TokensLimited
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import Grants
from tests.clock import Clock

RPM = RateLimit(scope="m in project p", unit="requests", limit=3)
TPM = RateLimit(scope="m in project p", unit="tokens", limit=100)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000)


@pytest.fixture
async def grants(tmp_path: Path) -> AsyncIterator[Grants]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield Grants(database)


async def admit(limits: RateLimits, limit: RateLimit, times: int, tokens: int = 1) -> int:
    """Returns the number of admitted requests of `times`."""
    windows = limits.windows([limit])
    count = 0
    for _ in range(times):
        try:
            await limits.reserve(windows, tokens)
            count += 1
        except RateLimited:
            pass
    return count


async def test_each_window_has_the_full_amount(clock):
    limits = RateLimits(clock=clock)

    assert await admit(limits, RPM, 5) == 3
    clock.now += 60
    assert await admit(limits, RPM, 5) == 3


async def test_refusal_takes_nothing_and_has_retry_after(clock):
    limits = RateLimits(clock=clock)
    windows = limits.windows([RPM, TPM])
    for _ in range(3):
        await limits.reserve(windows, 10)

    with pytest.raises(RequestsLimited, match=r"Limit 3, Used 3, Requested 1") as refused:
        await limits.reserve(windows, 10)
    error = refused.value
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert 0 < int(error.headers["retry-after-ms"]) <= 60_000
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    assert error.headers["x-ratelimit-remaining-tokens"] == "70"
    clock.now += error.retry_after_s
    await limits.reserve(windows, 10)


async def test_correction_returns_unused_and_charges_excess_tokens(clock):
    limits = RateLimits(clock=clock)
    windows = limits.windows([TPM])
    first = await limits.reserve(windows, 90)
    first.correct(10)
    second = await limits.reserve(windows, 90)
    second.correct(120)

    with pytest.raises(TokensLimited) as refused:
        await limits.reserve(windows, 1)
    assert refused.value.type == "tokens"


async def test_correction_after_its_window_changes_nothing(clock):
    limits = RateLimits(clock=clock)
    windows = limits.windows([TPM])
    first = await limits.reserve(windows, 90)
    clock.now += 60
    await limits.reserve(windows, 50)
    first.correct(1)

    assert limits.headers(windows)["x-ratelimit-remaining-tokens"] == "50"


async def test_request_larger_than_the_limit_is_refused_without_retry(clock):
    limits = RateLimits(clock=clock)

    with pytest.raises(TokensLimited, match="too large") as refused:
        await limits.reserve(limits.windows([TPM]), 101)
    assert refused.value.retry_after_s is None


async def test_headers_hold_the_tightest_limit_in_openais_format(clock):
    limits = RateLimits(clock=clock)
    windows = limits.windows(
        [
            RateLimit(scope="key k", unit="requests", limit=1000),
            RateLimit(scope="p", unit="requests", limit=2, window_s=86_400),
        ]
    )
    await limits.reserve(windows, 1)
    headers = limits.headers(windows)

    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in headers


@pytest.mark.parametrize("most", [3, 50, 1000])
async def test_servers_together_admit_as_many_as_one(grants, clock, most):
    limit = RateLimit(scope="m", unit="requests", limit=most)
    servers = [RateLimits(grants, clock=clock) for _ in range(3)]
    counts = await asyncio.gather(*(admit(one, limit, most) for one in servers))

    assert sum(counts) == most


async def test_minute_and_day_limits_are_shared_separately(grants, clock):
    minute = RateLimit(scope="m", unit="requests", limit=10)
    day = RateLimit(scope="m", unit="requests", limit=1000, window_s=86_400)
    clock.now = 86_400 * 20.0 + crc32(b"m") % 86_400  # both begin
    counts = []
    for server in [RateLimits(grants, clock=clock) for _ in range(2)]:
        counts.append(await admit(server, day, 5) + await admit(server, minute, 5))

    assert counts == [10, 10]


async def test_oversized_request_leaves_the_remaining_amount_to_others(grants, clock):
    a, b = (RateLimits(grants, clock=clock) for _ in range(2))
    await a.reserve(a.windows([TPM]), 40)
    with pytest.raises(TokensLimited):
        await b.reserve(b.windows([TPM]), 90)

    assert await admit(b, TPM, 1, tokens=20) == 1
    assert await admit(a, TPM, 1, tokens=40) == 1


async def test_request_whose_window_ends_during_its_grant_takes_of_the_next(tmp_path, clock):
    class SlowGrants(Grants):
        """The first grant arrives after another request has begun the next window."""

        async def take(self, *args: Any, **values: Any) -> int:
            granted = await super().take(*args, **values)
            if not late:
                late.append(granted)
                clock.now += 60
                limits.charge(windows, 0)
            return granted

    late: list[int] = []
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        limits = RateLimits(SlowGrants(database), clock=clock)
        windows = limits.windows([TPM, RPM])

        await limits.reserve(windows, 10)

        assert late
        assert limits.headers(windows)["x-ratelimit-remaining-tokens"] == "90"


async def test_unused_amount_of_a_server_is_available_to_another(grants, clock):
    a, b = (RateLimits(grants, clock=clock) for _ in range(2))
    first = await a.reserve(a.windows([TPM]), 95)
    assert await admit(b, TPM, 1, tokens=60) == 0
    first.correct(10)
    await a.wait_idle()
    clock.now += 1

    assert await admit(b, TPM, 1, tokens=85) == 1
    assert await admit(a, TPM, 9, tokens=1) == 5


async def test_database_is_queried_once_for_many_requests(grants, clock):
    asked = 0

    class Counted(Grants):
        async def take(self, *args, **kwargs) -> int:
            nonlocal asked
            asked += 1
            return await grants.take(*args, **kwargs)

    limits = RateLimits(Counted(grants._database), clock=clock)
    assert await admit(limits, RateLimit(scope="m", unit="requests", limit=1000), 1000) == 1000
    assert asked == 20


async def test_concurrent_requests_are_admitted_up_to_the_limit(grants, clock):
    limits = RateLimits(grants, clock=clock)
    limit = RateLimit(scope="m", unit="requests", limit=40)
    counts = await asyncio.gather(*(admit(limits, limit, 1) for _ in range(100)))

    assert sum(counts) == 40


async def test_window_has_one_query_in_flight(grants, clock):
    in_flight, most = 0, 0

    class Slow(Grants):
        async def take(self, *args, **kwargs) -> int:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            granted = await grants.take(*args, **kwargs)
            in_flight -= 1
            return granted

    limits = RateLimits(Slow(grants._database), clock=clock)
    windows = limits.windows([RateLimit(scope="m", unit="tokens", limit=1000)])

    async def arrive(later: int) -> None:
        for _ in range(later):
            await asyncio.sleep(0.001)
        await limits.reserve(windows, 60)  # more than one query grants to others

    await asyncio.gather(*(arrive(later) for later in range(16)))
    assert most == 1


async def test_a_request_whose_grant_another_one_used_is_granted_more(grants, clock):
    others: list[asyncio.Task[object]] = []

    class Hasty(Grants):
        async def take(self, *args, **kwargs) -> int:
            granted = await grants.take(*args, **kwargs)
            if not others:  # before the request of this query goes on
                others.append(asyncio.create_task(limits.reserve(windows, 60)))
            return granted

    limits = RateLimits(Hasty(grants._database), clock=clock)
    windows = limits.windows([RateLimit(scope="m", unit="tokens", limit=120)])
    await limits.reserve(windows, 60)
    await others[0]

    assert windows[0].used == 120
    with pytest.raises(TokensLimited):
        await limits.reserve(windows, 1)


async def test_server_enforces_the_limit_alone_during_an_outage(clock, caplog):
    class Down(Grants):
        def __init__(self) -> None:
            pass

        async def take(self, *args, **kwargs) -> int:
            raise StoreUnavailable("The database is down.")

    limits = RateLimits(Down(), clock=clock)

    assert await admit(limits, RPM, 5) == 3
    assert "rate_limits_not_shared" in caplog.text


async def test_changed_limit_begins_a_new_window(clock):
    limits = RateLimits(clock=clock)
    await admit(limits, RPM, 3)
    wider = RateLimit(scope=RPM.scope, unit=RPM.unit, limit=5)

    assert await admit(limits, wider, 9) == 5


async def test_windows_in_memory_are_bounded(clock):
    limits = RateLimits(clock=clock, windows_limit=100)
    for number in range(1_000):
        await admit(limits, RateLimit(scope=str(number), unit="requests", limit=1), 1)

    assert len(limits._windows) <= 100
    assert limits.generation <= 90
    assert await admit(limits, RateLimit(scope="999", unit="requests", limit=1), 1) == 0


async def test_grant_of_a_cancelled_request_is_available_to_others(grants, clock):
    a, b = RateLimits(grants, clock=clock), RateLimits(grants, clock=clock)
    asking = asyncio.create_task(admit(a, RPM, 1))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    await a.wait_idle()

    assert await admit(a, RPM, 3) + await admit(b, RPM, 3) == RPM.limit


@pytest.mark.parametrize(("limit", "tokens"), [(RPM, 1), (TPM, 30), (TPM, 90)])
async def test_refusal_with_shared_limits_reports_consistent_numbers(grants, clock, limit, tokens):
    """Used and requested amounts together exceed the limit, also if another server used them."""
    a, b = (RateLimits(grants, clock=clock) for _ in range(2))
    await admit(a, limit, 3, tokens=25)
    windows = b.windows([limit])

    await admit(b, limit, 3, tokens=tokens)
    with pytest.raises(RateLimited, match="of all processes and servers together") as refused:
        await b.reserve(windows, tokens)

    told = re.search(r"Limit (\d+), Used (\d+), Requested (\d+)", refused.value.message)
    assert told is not None
    most, used, requested = map(int, told.groups())
    assert used <= most < used + requested
    assert int(refused.value.headers[f"x-ratelimit-remaining-{limit.unit}"]) == most - used


async def test_refusal_names_requests_per_day(clock):
    day = RateLimit(scope="m", unit="requests", limit=0, window_s=86_400)
    limits = RateLimits(clock=clock)

    with pytest.raises(RequestsLimited, match=r"\(RPD\)"):
        await limits.reserve(limits.windows([day]), 1)
