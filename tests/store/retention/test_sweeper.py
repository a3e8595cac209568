"""The sweeper runs its sweeps periodically, whatever error one of them has."""

import asyncio
import logging

import pytest

from llm_backend.store.retention.sweeper import sweep_forever


async def test_failing_sweep_is_logged_and_does_not_end_the_others(caplog):
    swept = asyncio.Event()
    seen: list[str] = []

    async def breaks() -> None:
        seen.append("breaks")
        raise KeyError("a mistake")

    async def works() -> None:
        seen.append("works")
        if len(seen) >= 4:
            swept.set()

    with caplog.at_level(logging.ERROR):
        sweeping = asyncio.create_task(sweep_forever(breaks, works, first_after_s=0, every_s=0))
        await asyncio.wait_for(swept.wait(), 60)
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping

    assert seen[:4] == ["breaks", "works"] * 2
    assert "sweep_bug" in caplog.text
