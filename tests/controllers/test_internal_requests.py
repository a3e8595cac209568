"""Requests that the server sends to itself."""

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from llm_backend.controllers.internal_requests import open_exchange


async def test_an_answer_that_begins_while_its_request_is_cancelled_is_no_error(caplog):
    begins = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begins.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def request() -> Any:
        async with open_exchange(app, "/v1/responses", (), b"{}") as answer:
            return answer

    task = asyncio.create_task(request())
    for _ in range(5):
        await asyncio.sleep(0)
    begins.set()  # the application goes on before its task is cancelled
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert task.cancelled()
    assert caplog.records == []
