"""Models come into memory when they are wanted and go when others need the room; nobody is cut."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.backends.berth import Berth, ModelState, Patience
from llm_backend.backends.engine_room import EngineRoom
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
        self.room = EngineRoom(budget)
        self.made: dict[str, list[FakeEngine]] = {}

    def berth(self, name: str, size: int = 6, *, idle_s=None, patience=None, **engine) -> Berth:
        def make(_door: Path | None) -> FakeEngine:
            self.made.setdefault(name, []).append(FakeEngine(**engine))
            return self.made[name][-1]

        async def needs() -> int:
            return size

        berth = Berth(self.room, name, make, needs, patience=patience, idle_unload_s=idle_s)
        self.room.add(berth)
        return berth


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    one = House()
    async with one.room:
        yield one


async def used(berth: Berth) -> None:
    async with berth.used():
        pass


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_loads_its_model_and_later_ones_find_it(house):
    berth = house.berth("a")
    assert berth.state is ModelState.UNLOADED

    await asyncio.gather(used(berth), used(berth))
    await used(berth)

    assert berth.state is ModelState.LOADED
    assert len(house.made["a"]) == 1


async def test_who_was_unused_longest_goes_when_room_is_needed(house):
    small, other, large = (house.berth(n, s) for n, s in (("a", 4), ("b", 4), ("c", 5)))
    for berth in (small, other, small):
        await used(berth)

    await used(large)

    states = [berth.state for berth in (small, other, large)]
    assert states == [ModelState.LOADED, ModelState.UNLOADED, ModelState.LOADED]
    assert house.room.held_bytes == 9


async def test_a_model_at_work_finishes_what_it_has_begun_before_it_goes(house):
    busy, wanted = house.berth("a"), house.berth("b")
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
    busy, large, small = house.berth("a", 6), house.berth("b", 8), house.berth("c", 2)
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
        berth = house.berth("a", 5_250_000_000)

        with pytest.raises(InvalidRequest, match=r"about 5.2 GB .* may take 2.0 GB") as caught:
            await used(berth)
        with pytest.raises(InvalidRequest):
            await house.room.start(berth)

    assert (caught.value.code, caught.value.param) == ("model_too_large", "model")
    assert "a" not in house.made


async def test_at_the_start_as_many_are_loaded_as_fit(house):
    first, second = house.berth("a"), house.berth("b")

    assert await house.room.start(first)
    assert not await house.room.start(second)
    assert (first.state, second.state) == (ModelState.LOADED, ModelState.UNLOADED)


async def test_a_model_is_unloaded_when_nobody_has_used_it_for_a_while(house):
    berth = house.berth("a", idle_s=0.02)
    async with berth.used():
        await asyncio.sleep(0.05)
        assert berth.state is ModelState.LOADED
    await asyncio.wait_for(house.made["a"][0].closed.wait(), 20)
    await settle()

    assert berth.state is ModelState.UNLOADED


async def test_to_unload_waits_for_what_was_begun(house):
    berth = house.berth("a")
    async with berth.used():
        unloading = asyncio.create_task(berth.unload())
        await settle()
        assert not unloading.done()
    await unloading
    await berth.unload()

    assert berth.state is ModelState.UNLOADED


async def test_who_waits_too_long_or_is_one_too_many_is_told_to_come_again(house):
    patience = Patience(waiting_limit=2, deadline_s=0.05)
    berth = house.berth("a", is_quick=False, patience=patience)
    waiting = [asyncio.create_task(used(berth)) for _ in range(2)]
    await settle()

    with pytest.raises(Overloaded, match="2 requests wait for `a`") as refused:
        await used(berth)
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(one, EngineUnavailable) for one in results)
    assert refused.value.retry_after_s
    house.made["a"][0].decide()
    await used(berth)  # it was loaded in the end, once
    assert len(house.made["a"]) == 1


async def test_a_model_that_could_not_be_loaded_is_tried_again_when_that_is_asked(house):
    berth = house.berth("a", fails=True)
    for _ in range(2):
        with pytest.raises(EngineStartError):
            await used(berth)
    assert berth.state is ModelState.FAILED
    assert len(house.made["a"]) == 1

    with pytest.raises(EngineStartError):
        await berth.load()
    assert len(house.made["a"]) == 2


async def test_a_model_that_is_served_no_more_is_not_loaded_again(house):
    berth = house.berth("a")
    async with berth.used():
        removing = asyncio.create_task(house.room.remove(berth))
        await settle()
        late = asyncio.create_task(used(berth))
        await settle()
    await removing

    with pytest.raises(ModelNotFound):
        await late
    assert len(house.made["a"]) == 1


async def test_closing_the_room_closes_every_engine_and_ends_who_waits(house):
    busy, wanted = house.berth("a"), house.berth("b")
    async with busy.used():
        waiting = asyncio.create_task(used(wanted))
        await settle()
        await house.room.__aexit__()

    assert house.made["a"][0].closed.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
