"""Models come into memory when they are wanted and go when others need the room; nobody is cut."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.backends.local.model_handle import LoadQueueLimits, LocalModelHandle, ModelState
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.engine import EngineStartError, EngineState
from llm_backend.errors import EngineUnavailable, InvalidRequest, ModelNotFound, Overloaded


class FakeEngine:
    """An engine that is ready when it is told to be."""

    def __init__(self, *, is_quick: bool = True, fails: bool = False) -> None:
        self.state = EngineState.STARTING
        self.closed = asyncio.Event()
        self._fails = fails
        self._decided = asyncio.Event()
        if is_quick:
            self.decide()

    def decide(self) -> None:
        self.state = EngineState.FAILED if self._fails else EngineState.READY
        self._decided.set()

    def start(self) -> None:
        pass

    async def ready(self) -> None:
        await self._decided.wait()
        if self._fails:
            raise EngineStartError("It is no model.")

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed.set()


class House:
    """A room of 10 bytes, and the engines that were made in it, by the model's name."""

    def __init__(self, budget: int | None = 10) -> None:
        self.room = LocalModelManager(budget)
        self.made: dict[str, list[FakeEngine]] = {}

    def handle(
        self, name: str, size: int = 6, *, idle_s=None, patience=None, **engine
    ) -> LocalModelHandle:
        def make(_door: Path | None) -> FakeEngine:
            self.made.setdefault(name, []).append(FakeEngine(**engine))
            return self.made[name][-1]

        async def needs() -> int:
            return size

        handle = LocalModelHandle(
            self.room, name, make, needs, patience=patience, idle_unload_s=idle_s
        )
        self.room.add(handle)
        return handle


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    one = House()
    async with one.room:
        yield one


async def used(handle: LocalModelHandle) -> None:
    async with handle.used():
        pass


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_loads_its_model_and_later_ones_find_it(house):
    handle = house.handle("a")
    assert handle.state is ModelState.UNLOADED

    await asyncio.gather(used(handle), used(handle))
    await used(handle)

    assert handle.state is ModelState.LOADED
    assert len(house.made["a"]) == 1


async def test_who_was_unused_longest_goes_when_room_is_needed(house):
    small, other, large = (house.handle(n, s) for n, s in (("a", 4), ("b", 4), ("c", 5)))
    for handle in (small, other, small):
        await used(handle)

    await used(large)

    states = [handle.state for handle in (small, other, large)]
    assert states == [ModelState.LOADED, ModelState.UNLOADED, ModelState.LOADED]
    assert house.room.held_bytes == 9


async def test_a_model_at_work_finishes_what_it_has_begun_before_it_goes(house):
    busy, wanted = house.handle("a"), house.handle("b")
    async with busy.used() as engine:
        waiting = asyncio.create_task(used(wanted))
        await settle()
        late = asyncio.create_task(used(busy))
        await settle()
        assert busy.state is ModelState.UNLOADING
        assert not waiting.done()
        assert not engine.closed.is_set()
    await waiting
    await late

    assert engine.closed.is_set()
    assert len(house.made["a"]) == 2  # the late one had it loaded again, in its turn


async def test_a_model_that_fits_does_not_wait_for_one_that_needs_the_room_of_others(house):
    busy, large, small = house.handle("a", 6), house.handle("b", 8), house.handle("c", 2)
    async with busy.used():
        waiting = asyncio.create_task(used(large))
        await settle()
        other = asyncio.create_task(used(small))
        await settle()
        assert not other.done()  # what is left is promised to the large one
    await asyncio.gather(waiting, other)

    assert (large.state, small.state) == (ModelState.LOADED, ModelState.LOADED)


async def test_a_model_that_can_never_fit_is_refused_with_numbers():
    house = House(2_000_000_000)
    async with house.room:
        handle = house.handle("a", 5_250_000_000)

        with pytest.raises(InvalidRequest, match=r"about 5.2 GB .* may take 2.0 GB") as caught:
            await used(handle)
        with pytest.raises(InvalidRequest):
            await house.room.start(handle)

    assert (caught.value.code, caught.value.param) == ("model_too_large", "model")
    assert "a" not in house.made


async def test_at_the_start_as_many_are_loaded_as_fit(house):
    first, second = house.handle("a"), house.handle("b")

    assert await house.room.start(first)
    assert not await house.room.start(second)
    assert (first.state, second.state) == (ModelState.LOADED, ModelState.UNLOADED)


async def test_a_model_is_unloaded_when_nobody_has_used_it_for_a_while(house):
    handle = house.handle("a", idle_s=0.02)
    async with handle.used():
        await asyncio.sleep(0.05)
        assert handle.state is ModelState.LOADED
    await asyncio.wait_for(house.made["a"][0].closed.wait(), 20)
    await settle()

    assert handle.state is ModelState.UNLOADED


async def test_to_unload_waits_for_what_was_begun(house):
    handle = house.handle("a")
    async with handle.used():
        unloading = asyncio.create_task(handle.unload())
        await settle()
        assert not unloading.done()
    await unloading
    await handle.unload()

    assert handle.state is ModelState.UNLOADED


async def test_who_waits_too_long_or_is_one_too_many_is_told_to_come_again(house):
    patience = LoadQueueLimits(waiting_limit=2, deadline_s=0.05)
    handle = house.handle("a", is_quick=False, patience=patience)
    waiting = [asyncio.create_task(used(handle)) for _ in range(2)]
    await settle()

    with pytest.raises(Overloaded, match="2 requests wait for `a`") as refused:
        await used(handle)
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(one, EngineUnavailable) for one in results)
    assert refused.value.retry_after_s
    house.made["a"][0].decide()
    await used(handle)  # it was loaded in the end, once
    assert len(house.made["a"]) == 1


async def test_a_model_that_could_not_be_loaded_is_tried_again_when_that_is_asked(house):
    handle = house.handle("a", fails=True)
    for _ in range(2):
        with pytest.raises(EngineStartError):
            await used(handle)
    assert handle.state is ModelState.FAILED
    assert len(house.made["a"]) == 1

    with pytest.raises(EngineStartError):
        await handle.load()
    assert len(house.made["a"]) == 2


async def test_a_model_that_is_served_no_more_is_not_loaded_again(house):
    handle = house.handle("a")
    async with handle.used():
        removing = asyncio.create_task(house.room.remove(handle))
        await settle()
        late = asyncio.create_task(used(handle))
        await settle()
    await removing

    with pytest.raises(ModelNotFound):
        await late
    assert len(house.made["a"]) == 1


async def test_closing_the_room_closes_every_engine_and_ends_who_waits(house):
    busy, wanted = house.handle("a"), house.handle("b")
    async with busy.used():
        waiting = asyncio.create_task(used(wanted))
        await settle()
        await house.room.__aexit__()

    assert house.made["a"][0].closed.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
