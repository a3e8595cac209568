"""Model manager: loads on demand, unloads within the budget, and aborts no running request."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.backends.local.local_handle import LocalModelHandle
from llm_backend.backends.local.model_handle import LoadQueueLimits, ModelState
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.engine import EngineStartError, EngineState
from llm_backend.errors import EngineUnavailable, InvalidRequest, ModelNotFound, ServiceUnavailable


class FakeEngine:
    """Engine without a process, ready or failed after `decide`."""

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


class Models:
    """Model manager with a budget of 10 bytes, and the engines it has created, by model."""

    def __init__(self, budget: int | None = 10) -> None:
        self.manager = LocalModelManager(budget)
        self.created: dict[str, list[FakeEngine]] = {}

    def add(
        self, name: str, size: int = 6, *, idle_s=None, limits=None, **engine
    ) -> LocalModelHandle:
        def make(_socket_path: Path | None) -> FakeEngine:
            self.created.setdefault(name, []).append(FakeEngine(**engine))
            return self.created[name][-1]

        async def estimate_bytes() -> int:
            return size

        return self.manager.add_model(
            name, make, estimate_bytes, limits=limits, idle_unload_s=idle_s
        )


@pytest_asyncio.fixture
async def models() -> AsyncIterator[Models]:
    one = Models()
    async with one.manager:
        yield one


async def use(handle: LocalModelHandle) -> None:
    async with handle.use():
        pass


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_request_loads_its_model_once(models):
    handle = models.add("a")
    assert handle.state is ModelState.UNLOADED

    await asyncio.gather(use(handle), use(handle))
    await use(handle)

    assert handle.state is ModelState.LOADED
    assert len(models.created["a"]) == 1


def estimate_later(handle: LocalModelHandle) -> asyncio.Event:
    """Lets the estimate of a model's memory wait for this event."""
    may_go_on = asyncio.Event()

    async def estimate_bytes() -> int:
        await may_go_on.wait()
        return 6

    handle.estimate_bytes = estimate_bytes
    return may_go_on


@pytest.mark.parametrize("is_first", [True, False])
async def test_model_that_begins_to_load_and_is_requested_has_one_engine(models, is_first):
    handle = models.add("a")
    may_go_on = estimate_later(handle)
    calls = [handle.start_if_fits(), use(handle)]
    tasks = [asyncio.create_task(one) for one in (calls if is_first else reversed(calls))]
    await settle()
    may_go_on.set()
    await asyncio.gather(*tasks)

    assert len(models.created["a"]) == 1
    assert models.manager.memory_bytes == 6


async def test_model_that_is_removed_while_it_begins_to_load_is_not_loaded(models):
    handle = models.add("a")
    may_go_on = estimate_later(handle)
    request = asyncio.create_task(use(handle))
    await settle()
    request.cancel()
    await settle()
    await models.manager.remove(handle)
    may_go_on.set()
    await settle()

    assert models.created == {}


async def test_least_recently_used_model_is_evicted(models):
    small, other, large = (models.add(n, s) for n, s in (("a", 4), ("b", 4), ("c", 5)))
    for handle in (small, other, small):
        await use(handle)

    await use(large)

    states = [handle.state for handle in (small, other, large)]
    assert states == [ModelState.LOADED, ModelState.UNLOADED, ModelState.LOADED]
    assert models.manager.memory_bytes == 9


async def test_busy_model_drains_before_it_is_evicted(models):
    busy, wanted = models.add("a"), models.add("b")
    async with busy.use() as engine:
        waiting = asyncio.create_task(use(wanted))
        await settle()
        late = asyncio.create_task(use(busy))
        await settle()
        assert busy.state is ModelState.UNLOADING
        assert not waiting.done()
        assert not engine.closed.is_set()
    await waiting
    await late

    assert engine.closed.is_set()
    assert len(models.created["a"]) == 2  # the late one had it loaded again, in its turn


async def test_reserved_memory_is_given_to_no_later_model(models):
    busy, large, small = models.add("a", 6), models.add("b", 8), models.add("c", 2)
    async with busy.use():
        waiting = asyncio.create_task(use(large))
        await settle()
        other = asyncio.create_task(use(small))
        await settle()
        assert not other.done()  # what is left is promised to the large one
    await asyncio.gather(waiting, other)

    assert (large.state, small.state) == (ModelState.LOADED, ModelState.LOADED)


async def test_model_larger_than_the_budget_is_refused_with_sizes():
    models = Models(2_000_000_000)
    async with models.manager:
        handle = models.add("a", 5_250_000_000)

        with pytest.raises(InvalidRequest, match=r"about 5.2 GB .* may take 2.0 GB") as caught:
            await use(handle)
        with pytest.raises(InvalidRequest):
            await models.manager.start_if_fits(handle)

    assert (caught.value.code, caught.value.param) == ("model_too_large", "model")
    assert "a" not in models.created


async def test_start_loads_only_models_that_fit(models):
    first, second = models.add("a"), models.add("b")

    assert await models.manager.start_if_fits(first)
    assert not await models.manager.start_if_fits(second)
    assert (first.state, second.state) == (ModelState.LOADED, ModelState.UNLOADED)


async def test_idle_model_is_unloaded(models):
    handle = models.add("a", idle_s=0.02)
    async with handle.use():
        await asyncio.sleep(0.05)
        assert handle.state is ModelState.LOADED
    await asyncio.wait_for(models.created["a"][0].closed.wait(), 20)
    await settle()

    assert handle.state is ModelState.UNLOADED


async def test_unload_waits_for_running_requests(models):
    handle = models.add("a")
    async with handle.use():
        unloading = asyncio.create_task(handle.unload())
        await settle()
        assert not unloading.done()
    await unloading
    await handle.unload()

    assert handle.state is ModelState.UNLOADED


async def test_requests_that_wait_for_a_load_are_bounded_in_time_and_number(models):
    limits = LoadQueueLimits(waiting_limit=2, deadline_s=0.05)
    handle = models.add("a", is_quick=False, limits=limits)
    waiting = [asyncio.create_task(use(handle)) for _ in range(2)]
    await settle()

    with pytest.raises(ServiceUnavailable, match="2 requests wait for `a`") as refused:
        await use(handle)
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert all(isinstance(one, EngineUnavailable) for one in results)
    assert refused.value.retry_after_s
    models.created["a"][0].decide()
    await use(handle)  # it was loaded in the end, once
    assert len(models.created["a"]) == 1


async def test_failed_model_is_loaded_again_only_by_command(models):
    handle = models.add("a", fails=True)
    for _ in range(2):
        with pytest.raises(EngineStartError):
            await use(handle)
    assert handle.state is ModelState.FAILED
    assert len(models.created["a"]) == 1

    with pytest.raises(EngineStartError):
        await handle.load()
    assert len(models.created["a"]) == 2


async def test_removed_model_is_not_loaded_again(models):
    handle = models.add("a")
    async with handle.use():
        removing = asyncio.create_task(models.manager.remove(handle))
        await settle()
        late = asyncio.create_task(use(handle))
        await settle()
    await removing

    with pytest.raises(ModelNotFound):
        await late
    assert len(models.created["a"]) == 1


async def test_requests_that_wait_for_a_replaced_model_use_the_new_one(models):
    old = models.add("a")
    async with old.use():
        unloading = asyncio.create_task(old.unload())
        await settle()
        waiting = asyncio.create_task(use(old))
        await settle()
        new = models.add("a")
        removing = asyncio.create_task(models.manager.remove(old))
        await settle()
    await asyncio.gather(unloading, removing, waiting)

    assert new.state is ModelState.LOADED
    assert len(models.created["a"]) == 2


async def test_a_request_with_the_handle_of_a_replaced_model_uses_the_new_one(models):
    old = models.add("a")
    await use(old)
    new = models.add("a")
    await models.manager.remove(old)
    async with old.use() as engine:
        assert engine is new.engine


async def test_closing_the_manager_closes_engines_and_cancels_waiting_requests(models):
    busy, wanted = models.add("a"), models.add("b")
    async with busy.use():
        waiting = asyncio.create_task(use(wanted))
        await settle()
        await models.manager.__aexit__()

    assert models.created["a"][0].closed.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
