"""Background tasks: settled or cancelled together, and forgotten once they end."""

import asyncio

from llm_backend.background_tasks import BackgroundTasks, background_task


async def test_a_background_task_has_ended_when_its_context_is_closed() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append("work")

    async with background_task(work()):
        await asyncio.sleep(0)

    assert ended == ["work"]


async def test_an_error_of_a_background_task_is_logged_at_once(caplog) -> None:
    async def fail() -> None:
        raise ValueError("broken")

    async with background_task(fail()):
        for _ in range(3):
            await asyncio.sleep(0)
        logged = caplog.text

    assert "background_task_failed" in logged
    assert "ValueError: broken" in logged


async def test_settle_waits_for_all_tasks_including_those_that_tasks_start() -> None:
    tasks, done = BackgroundTasks(), []

    async def finish(name: str) -> None:
        await asyncio.sleep(0)
        done.append(name)

    async def start_another() -> None:
        tasks.start(finish("second"))
        done.append("first")

    tasks.start(start_another())
    await tasks.wait_idle()

    assert done == ["first", "second"]
    assert len(tasks) == 0


async def test_a_task_waits_for_the_others_and_not_for_itself() -> None:
    tasks, seen, event = BackgroundTasks(), [], asyncio.Event()

    async def wait_for_the_others() -> None:
        seen.append(tasks.are_others_running)
        event.set()
        await tasks.wait_others()
        seen.append(tasks.are_others_running)

    async def finish() -> None:
        await event.wait()

    tasks.start(wait_for_the_others())
    tasks.start(finish())
    await tasks.wait_idle()

    assert seen == [True, False]


async def test_cancel_ends_all_tasks_and_waits_for_their_cleanup() -> None:
    tasks, cleaned = BackgroundTasks(), []

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    tasks.start(run())
    await asyncio.sleep(0)
    await tasks.cancel()

    assert cleaned == [True]
