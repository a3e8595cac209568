"""Permit queue: callers take turns for permits of upstreams."""

import asyncio
from types import SimpleNamespace

import pytest

from llm_backend.backends.upstream.permits.permit_queue import PermitQueue
from llm_backend.errors import ServiceUnavailable


class Rooms:
    """Places by name, and a line in front of them."""

    def __init__(self, **free: int) -> None:
        self.rooms = {
            name: SimpleNamespace(name=name, reserved=0, room=n) for name, n in free.items()
        }
        self.queue: PermitQueue = PermitQueue(lambda rooms: rooms[0], depth=4)
        self.came: list[str] = []

    def free(self, names: str):
        return [one for name in names if (one := self.rooms[name]).room > one.reserved]

    async def ask(self, who: str, names: str = "x", within_s: float = 5) -> str:
        room = await self.queue.acquire(
            who, group=names, free=lambda: self.free(names), timeout_s=within_s
        )
        room.room -= 1
        self.came.append(who)
        return room.name

    def leave(self, name: str) -> None:
        self.rooms[name].room += 1
        self.queue.grant()


async def begun(*asking):
    tasks = [asyncio.create_task(one) for one in asking]
    await asyncio.sleep(0)
    return tasks


async def test_callers_take_turns():
    rooms = Rooms(x=0)
    tasks = await begun(rooms.ask("a"), rooms.ask("a"), rooms.ask("b"), rooms.ask("c"))
    for _ in range(4):
        rooms.leave("x")
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)

    assert rooms.came == ["a", "b", "c", "a"]


async def test_busy_upstream_does_not_block_requests_for_others():
    rooms = Rooms(x=0, y=0)
    first, second = await begun(rooms.ask("a", "x"), rooms.ask("b", "xy"))
    rooms.leave("y")

    assert await second == "y"
    rooms.leave("x")
    assert await first == "x"


async def test_timeout_raises_overloaded_and_leaves_the_queue():
    rooms = Rooms(x=0)
    with pytest.raises(ServiceUnavailable):
        await rooms.ask("a", within_s=0.01)

    assert len(rooms.queue) == 0


async def test_permit_of_a_cancelled_request_goes_to_the_next():
    rooms = Rooms(x=0)
    first, second = await begun(rooms.ask("a"), rooms.ask("b"))
    rooms.leave("x")
    first.cancel()

    assert await second == "x"
    assert rooms.rooms["x"].reserved == 0


async def test_full_permit_queue_drops_the_newest_of_the_caller_with_most():
    rooms = Rooms(x=0)
    tasks = await begun(*(rooms.ask("a") for _ in range(4)))
    with pytest.raises(ServiceUnavailable):
        await rooms.ask("a")
    tasks += await begun(rooms.ask("b"))
    with pytest.raises(ServiceUnavailable):
        await tasks[3]

    assert len(rooms.queue) == 4
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_permit_without_an_event_is_found_by_polling():
    rooms = Rooms(x=0)
    (task,) = await begun(rooms.ask("a"))
    rooms.rooms["x"].room = 1  # an ejection is over, say

    assert await task == "x"
