"""Engine users: the idle timer of an engine."""

import asyncio

from llm_backend.backends.local.engine_users import EngineUsers


async def test_idle_timer_that_starts_again_replaces_the_first():
    unloads = []
    users = EngineUsers(0.01, lambda: unloads.append("idle"))
    users.start_idle_timer()
    users.start_idle_timer()
    users.stop_idle_timer()
    await asyncio.sleep(0.05)

    assert unloads == []
