"""Write-behind buffer: batches of items, within a bound."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from llm_backend.controllers.write_behind.write_behind_buffer import WriteBehindBuffer
from tests.patience import comes_true, settle

WHO: ContextVar[str] = ContextVar("who", default="none")


class Book:
    """Notes what is written, and may be slow."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def write(self, items: Sequence[str]) -> None:
        await self.may_write.wait()
        self.writes.append(list(items))


async def test_items_added_together_are_one_batch():
    backlog = WriteBehindBuffer((book := Book()).write, pause_s=0.01)

    for item in "abc":
        assert backlog.try_add(item, 1)

    assert await comes_true(lambda: bool(book.writes), within_s=1)
    assert book.writes == [["a", "b", "c"]]


async def test_flush_does_not_wait_for_more_items():
    backlog = WriteBehindBuffer((book := Book()).write, pause_s=600)
    backlog.try_add("a", 1)

    async with asyncio.timeout(60):
        await backlog.flush()

    assert book.writes == [["a"]]


async def test_flush_waits_for_items_in_flight_and_not_for_later_ones():
    backlog = WriteBehindBuffer((book := Book()).write, pause_s=0)
    book.may_write.clear()
    backlog.try_add("a", 1)
    await settle()
    catching_up = asyncio.create_task(backlog.flush())
    await asyncio.sleep(0)
    assert not catching_up.done()

    backlog.try_add("b", 1)
    book.may_write.set()
    await catching_up

    assert book.writes[0] == ["a"]
    await backlog.flush()
    assert book.writes == [["a"], ["b"]]


@pytest.mark.parametrize(("items_most", "bytes_most"), [(3, 100), (100, 30)])
async def test_items_over_a_bound_are_refused_until_there_is_room(items_most, bytes_most):
    backlog = WriteBehindBuffer((book := Book()).write, max_items=items_most, max_bytes=bytes_most)
    book.may_write.clear()

    assert [backlog.try_add("a", 10) for _ in range(4)] == [True, True, True, False]
    await settle()  # on their way, they still count
    assert not backlog.try_add("a", 10)
    book.may_write.set()
    await backlog.flush()
    assert backlog.try_add("a", 10)
    await backlog.flush()


async def test_writes_run_in_an_empty_context():
    seen = []

    async def write(_items: Sequence[str]) -> None:
        seen.append(WHO.get())

    backlog = WriteBehindBuffer(write)
    WHO.set("ann")
    backlog.try_add("a", 1)
    await backlog.flush()

    assert seen == ["none"]


async def test_a_write_that_fails_is_over():
    failures = iter([RuntimeError("a bug"), None])

    async def write(_items: Sequence[str]) -> None:
        if (failure := next(failures)) is not None:
            raise failure

    backlog = WriteBehindBuffer(write)
    backlog.try_add("a", 1)
    await backlog.flush()
    backlog.try_add("b", 1)
    await backlog.flush()

    assert next(failures, "all used") == "all used"
