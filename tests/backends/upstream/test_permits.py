"""Permits: one concurrency limit for several processes."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from llm_backend.backends.upstream.attempts import Attempts
from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.permits.permit_client import PermitClient
from llm_backend.backends.upstream.permits.permit_messages import SOCKET
from llm_backend.backends.upstream.permits.permit_server import PermitServer
from llm_backend.backends.upstream.upstream_health import FAILURES
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.errors import ServiceUnavailable
from tests.patience import settle


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


class Process:
    """One that takes places at upstreams, and says who came in which order."""

    def __init__(self, places: PermitClient, upstreams: list[Upstream], came: list[str]) -> None:
        self.upstreams = {one.name: one for one in upstreams}
        self._places = places
        self._came = came

    async def enter(self, who: str = "", *, has_fallback: bool = False) -> Upstream:
        asked = UpstreamRequest(
            method="POST",
            path="/x",
            query=b"",
            headers=(),
            body=b"",
            fairness_key=who,
            has_fallback=has_fallback,
        )
        upstream = await self._places.acquire(Attempts(asked, list(self.upstreams.values())))
        upstream.outstanding += 1
        self._came.append(who)
        return upstream

    def leave(self, upstream: Upstream) -> None:
        upstream.outstanding -= 1
        upstream.on_permit_free()

    @property
    def held(self) -> dict[str, int]:
        return {name: one.permits for name, one in self.upstreams.items()}


class Server:
    """Processes that share these upstreams, named by what they may have at once."""

    def __init__(self, folder: Path, stack: AsyncExitStack, limits: dict[str, int]) -> None:
        self.came: list[str] = []
        self.cut_off = 0
        self.configs = [
            UpstreamConfig(
                name=name, base_url="http://127.0.0.1:1", concurrency=most, connect_timeout_s=5
            )
            for name, most in limits.items()
        ]
        self._folder = folder
        self._stack = stack

    def _cut_off(self) -> None:
        self.cut_off += 1

    async def process(self) -> Process:
        return await self._stack.enter_async_context(self.passing_process())

    @asynccontextmanager
    async def passing_process(self) -> AsyncIterator[Process]:
        upstreams = [Upstream(config) for config in self.configs]
        async with PermitClient.connect(self._folder, upstreams, self._cut_off) as places:
            yield Process(places, upstreams, self.came)


@asynccontextmanager
async def server(folder: Path, **limits: int) -> AsyncIterator[Server]:
    async with AsyncExitStack() as stack:
        made = Server(folder, stack, limits)
        await stack.enter_async_context(PermitServer(folder, made.configs))
        yield made


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not claim():  # noqa: ASYNC110 - the other end of a socket gives no event
            await asyncio.sleep(0.002)


async def test_processes_together_stay_below_the_concurrency_limit(folder: Path):
    async with server(folder, a=2) as shared:
        one, other = await shared.process(), await shared.process()
        first, _ = await one.enter(), await other.enter()
        waiting = asyncio.create_task(other.enter("late"))
        await settle()
        assert not waiting.done()

        one.leave(first)
        assert (await waiting).name == "a"
        assert (one.held, other.held) == ({"a": 0}, {"a": 2})


async def test_callers_of_all_processes_take_turns(folder: Path):
    async with server(folder, a=1) as shared:
        one, other = await shared.process(), await shared.process()
        inside = await one.enter("first")
        many = [asyncio.create_task(one.enter("many")) for _ in range(3)]
        await settle()
        few = asyncio.create_task(other.enter("few"))
        await settle()

        one.leave(inside)
        await until(lambda: len(shared.came) == 2)
        one.leave(one.upstreams["a"])
        await few
        other.leave(other.upstreams["a"])
        await until(lambda: len(shared.came) == 4)
        one.leave(one.upstreams["a"])
        await asyncio.gather(*many)

    assert shared.came == ["first", "many", "few", "many", "many"]


async def test_process_gets_a_block_of_permits_while_many_are_free(folder: Path):
    async with server(folder, a=100) as shared:
        one = await shared.process()
        inside = [await one.enter() for _ in range(6)]
        assert one.held == {"a": 6}  # a block of five beside the first

        for upstream in inside:
            one.leave(upstream)
        assert one.held == {"a": 6}  # less than two blocks are kept


async def test_spare_permits_are_released_when_they_are_scarce(folder: Path):
    async with server(folder, a=20) as shared:
        one, other = await shared.process(), await shared.process()
        one.leave(await one.enter())
        assert one.held == {"a": 2}  # a block, and what is not worth giving back
        for _ in range(20):
            await other.enter()

        assert (one.held, other.held) == ({"a": 0}, {"a": 20})


async def test_cancelled_request_takes_no_permit(folder: Path):
    async with server(folder, a=1) as shared:
        one, other = await shared.process(), await shared.process()
        inside = await one.enter()
        leaving = asyncio.create_task(other.enter())
        await settle()
        leaving.cancel()
        staying = asyncio.create_task(one.enter("stays"))
        await settle()

        one.leave(inside)
        assert (await staying).name == "a"
        assert other.held == {"a": 0}


async def test_permits_of_a_dead_process_are_free(folder: Path):
    async with server(folder, a=1) as shared:
        other = await shared.process()
        async with shared.passing_process() as dying:
            await dying.enter()
            waiting = asyncio.create_task(other.enter())
            await settle()
            assert not waiting.done()

        assert (await waiting).name == "a"
        assert shared.cut_off == 0  # it has left by itself


async def test_permit_is_for_the_upstream_least_busy_in_all_processes(folder: Path):
    async with server(folder, a=3, b=3) as shared:
        one, other = await shared.process(), await shared.process()
        names = [(await process.enter()).name for process in (one, other, one, other)]

    assert sorted(names) == ["a", "a", "b", "b"]


async def test_permit_of_an_ejected_upstream_is_returned(folder: Path):
    async with server(folder, a=1, b=1) as shared:
        one = await shared.process()
        inside = [await one.enter(), await one.enter()]
        waiting = asyncio.create_task(one.enter())
        await settle()
        ill, well = sorted(inside, key=lambda upstream: upstream.name)
        for _ in range(FAILURES):
            ill.health.record_failure(
                asyncio.get_running_loop().time(), ill.health.record_request()
            )

        one.leave(ill)
        await settle()
        assert not waiting.done()
        one.leave(well)
        assert await waiting is well


async def test_request_with_another_backend_does_not_wait_for_a_permit(folder: Path):
    async with server(folder, a=1) as shared:
        one, other = await shared.process(), await shared.process()
        await one.enter()

        with pytest.raises(ServiceUnavailable, match="busy"):
            async with asyncio.timeout(30):
                await other.enter(has_fallback=True)


async def test_requests_do_not_wait_without_a_permit_server(folder: Path):
    async with AsyncExitStack() as stack:
        async with server(folder, a=1) as shared:
            one = await stack.enter_async_context(shared.passing_process())
            await one.enter()
            waiting = asyncio.create_task(one.enter())
            await settle()

        for refused in (waiting, one.enter()):
            with pytest.raises(ServiceUnavailable):
                await refused
        assert shared.cut_off == 1


async def test_stuck_permit_server_is_disconnected(folder: Path):
    connections: list[asyncio.StreamWriter] = []

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # a private one
        connections.append(writer)

    async with await asyncio.start_unix_server(stuck, folder / SOCKET), AsyncExitStack() as stack:
        one = await Server(folder, stack, {"a": 1}).process()
        waiting = [asyncio.create_task(one.enter("x" * 100_000)) for _ in range(30)]
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        connections[0].close()

    assert all(isinstance(outcome, ServiceUnavailable) for outcome in outcomes)
