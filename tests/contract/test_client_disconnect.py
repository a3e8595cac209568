"""Work that ends with its client's connection leaks no resource, at any point."""

import asyncio

import pytest

from llm_backend.contract.client_disconnect import WATCH_DELAY_S, run_until_disconnect
from llm_backend.errors import ClientGone
from llm_backend.fair_queue import FairSemaphore
from tests.patience import settle


async def forever() -> None:
    await asyncio.Event().wait()


async def gone() -> None:
    """The client has left already."""


async def test_the_result_of_the_work_is_returned():
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await run_until_disconnect(work(), forever) == 7


async def test_errors_of_the_work_propagate():
    async def work() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await run_until_disconnect(work(), forever)


async def test_a_disconnect_cancels_the_work():
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await forever()
        finally:
            ended.set()

    with pytest.raises(ClientGone):
        await run_until_disconnect(work(), gone)

    assert ended.is_set()


@pytest.mark.parametrize("pauses", range(6))
async def test_a_permit_acquired_during_a_cancellation_is_released(pauses: int):
    semaphore = FairSemaphore(1, depth=5, timeout_s=5)
    semaphore.try_acquire()

    async def asking() -> None:
        await run_until_disconnect(semaphore.acquire("client"), forever)
        semaphore.release()

    task = asyncio.create_task(asking())
    await settle()
    semaphore.release()
    for _ in range(pauses):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})

    assert semaphore.try_acquire()


@pytest.mark.parametrize("pauses", range(6))
async def test_a_permit_acquired_during_a_disconnect_is_released(pauses: int):
    semaphore = FairSemaphore(1, depth=5, timeout_s=5)
    semaphore.try_acquire()
    leaving = asyncio.Event()

    async def asking() -> None:
        await run_until_disconnect(semaphore.acquire("client"), leaving.wait)
        semaphore.release()

    task = asyncio.create_task(asking())
    await asyncio.sleep(2 * WATCH_DELAY_S)
    semaphore.release()
    for _ in range(pauses):
        await asyncio.sleep(0)
    leaving.set()
    await asyncio.wait({task})

    assert semaphore.try_acquire()
    assert task.exception() is None or isinstance(task.exception(), ClientGone)
