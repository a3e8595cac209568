"""Buffer of a response's events: what it does with the error of a failed write."""

import asyncio

import pytest

from llm_backend.controllers.responses.events.event_log import EventLog
from llm_backend.store import Events, LeaseLost, StoreUnavailable

EVENT = {"sequence_number": 1, "type": "response.created"}


async def refuse(_events: Events) -> None:
    raise StoreUnavailable("the disk is full")


async def lose_lease(_events: Events) -> None:
    raise LeaseLost("resp_1")


async def run_until_failed(
    write=refuse, *, error: BaseException | None = None, drains: bool = False
) -> None:
    """The block of a log whose only write fails; `error` is the block's own."""
    async with EventLog(write) as event_log:
        event_log.add([EVENT])
        await asyncio.wait({event_log._task})
        if error is not None:
            raise error
        if drains:
            await event_log.drain()


async def test_event_log_raises_the_error_of_the_last_write_at_its_exit():
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await run_until_failed()


async def test_event_log_keeps_the_error_of_its_block_and_logs_that_of_a_write(caplog):
    with pytest.raises(RuntimeError, match="of the block"):
        await run_until_failed(error=RuntimeError("of the block"))

    assert [one.getMessage() for one in caplog.records] == ["response_events_not_stored"]


async def test_event_log_of_a_cancelled_response_logs_no_error(caplog):
    with pytest.raises(asyncio.CancelledError):
        await run_until_failed(lose_lease, error=asyncio.CancelledError())

    assert not caplog.records


async def test_event_log_does_not_log_an_error_that_drain_raised(caplog):
    with pytest.raises(StoreUnavailable):
        await run_until_failed(drains=True)

    assert not caplog.records
