"""Forgets what is over, again and again, as long as a server runs."""

import asyncio
import logging
from typing import NoReturn

from llm_backend.store.errors import StoreError
from llm_backend.store.files import Files
from llm_backend.store.uploads import Uploads

__all__ = ["sweep_forever"]

FIRST_AFTER_S = 2.0  # when the server has answered its first requests
EVERY_S = 60.0

log = logging.getLogger(__name__)


async def sweep_forever(
    files: Files,
    uploads: Uploads,
    *,
    first_after_s: float = FIRST_AFTER_S,
    every_s: float = EVERY_S,
) -> NoReturn:
    """Forgets files and uploads whose time is over, and bytes that nobody took up or gave back."""
    await asyncio.sleep(first_after_s)
    while True:
        try:
            await files.expire()
            await uploads.expire()
            await files.blobs.sweep()
        except StoreError as error:  # the next one does its work
            log.warning("not_swept", extra={"reason": str(error)})
        await asyncio.sleep(every_s)
