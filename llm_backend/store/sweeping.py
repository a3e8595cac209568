"""Forgets what is over, again and again, as long as a server runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from llm_backend.store.errors import StoreError

__all__ = ["sweep_forever"]

FIRST_AFTER_S = 2.0  # when the server has answered its first requests
EVERY_S = 60.0

log = logging.getLogger(__name__)


async def sweep_forever(
    *sweeps: Callable[[], Awaitable[None]],
    first_after_s: float = FIRST_AFTER_S,
    every_s: float = EVERY_S,
) -> NoReturn:
    """Does each of these in turn: forgets whose time is over, and what nobody took up."""
    await asyncio.sleep(first_after_s)
    while True:
        for sweep in sweeps:
            try:
                await sweep()
            except StoreError as error:  # the next one does its work
                log.warning("not_swept", extra={"reason": str(error)})
            except Exception:  # a mistake in one must not end the others: it is told whole
                log.exception("sweep_failed")
        await asyncio.sleep(every_s)
