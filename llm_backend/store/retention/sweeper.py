"""Sweeper: deletes expired objects and orphans periodically, as long as the server runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from llm_backend.store.errors import StoreError

FIRST_AFTER_S = 2.0  # after the server has answered its first requests
EVERY_S = 60.0

log = logging.getLogger(__name__)


async def sweep_forever(
    *sweeps: Callable[[], Awaitable[None]],
    first_after_s: float = FIRST_AFTER_S,
    every_s: float = EVERY_S,
) -> NoReturn:
    """Runs these sweeps one after the other, every `every_s` seconds. An error in one is logged and
    does not end the others."""
    await asyncio.sleep(first_after_s)
    while True:
        for sweep in sweeps:
            try:
                await sweep()
            except StoreError as error:  # the next round tries again
                log.warning("sweep_store_error", extra={"reason": str(error)})
            except Exception:  # a bug in one must not end the others
                log.exception("sweep_bug")
        await asyncio.sleep(every_s)
