"""Group commit: concurrent writes share a transaction, and each gets its own error."""

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar

import pytest

from llm_backend.controllers.write_behind.group_commit import GroupCommit

WHO: ContextVar[str] = ContextVar("who", default="none")


class Book:
    """Notes what is written, may be slow, and has no room for a `bad` word."""

    def __init__(self) -> None:
        self.writes: list[list[str]] = []
        self.who: list[str] = []
        self.may_write = asyncio.Event()
        self.may_write.set()

    async def write(self, words: Sequence[str]) -> Sequence[Exception | None]:
        self.writes.append(list(words))
        self.who.append(WHO.get())
        await self.may_write.wait()
        return [ValueError(word) if word == "bad" else None for word in words]


async def begun(together: GroupCommit[str], *words: str) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(together.write(word)) for word in words]
    await asyncio.sleep(0)
    return tasks


async def test_items_added_during_a_write_are_in_the_next_batch():
    together = GroupCommit((book := Book()).write)
    book.may_write.clear()
    first = await begun(together, "a")
    await asyncio.sleep(0)
    others = await begun(together, "b", "c")

    assert book.writes == [["a"]]
    book.may_write.set()
    await asyncio.gather(*first, *others)
    assert book.writes == [["a"], ["b", "c"]]


async def test_each_item_gets_the_error_of_its_own_write():
    together = GroupCommit(Book().write)
    good, bad, last = await begun(together, "a", "bad", "c")

    await asyncio.gather(good, last)
    with pytest.raises(ValueError, match="bad"):
        await bad


async def test_a_mistake_in_writing_is_everybodys_and_the_next_ones_are_written():
    fates = iter([RuntimeError("a bug"), None])

    async def write(words: Sequence[str]) -> Sequence[Exception | None]:
        if (failure := next(fates)) is not None:
            raise failure
        return [None for _ in words]

    together = GroupCommit(write)
    for task in await begun(together, "a", "b"):
        with pytest.raises(RuntimeError):
            await task
    await together.write("c")


async def test_an_item_of_a_cancelled_caller_is_written():
    together = GroupCommit((book := Book()).write)
    book.may_write.clear()
    first, second = await begun(together, "a", "b")
    second.cancel()
    book.may_write.set()
    await first
    await together.wait_idle()

    assert [word for words in book.writes for word in words] == ["a", "b"]


async def test_writes_run_in_an_empty_context():
    together = GroupCommit((book := Book()).write)
    WHO.set("ann")

    await together.write("a")

    assert book.who == ["none"]
