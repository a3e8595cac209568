"""What is done only as long as the client is there."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from llm_backend.contract.request import Request
from llm_backend.errors import ClientGone

__all__ = ["unless_gone", "unless_left"]

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives, unless the client leaves first: then `work` is cancelled, `ClientGone`.

    The request's body must have been read: nothing but the client's leaving is still to come.
    """
    return await unless_left(work, _left(request))


async def unless_left(work: Coroutine[Any, Any, T], left: Coroutine[Any, Any, Any]) -> T:
    """What `work` gives, unless `left` ends first: then `work` is cancelled, `ClientGone`."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(left)
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return await working
    finally:
        for task in (working, leaving):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _left(request: Request) -> None:
    while (await request.http.receive())["type"] != "http.disconnect":
        pass
