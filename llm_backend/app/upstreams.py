"""The upstreams that the settings name, if they name any."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm_backend.app import served_upstreams
from llm_backend.backends.upstreams.config import UpstreamConfig
from llm_backend.contract import Document
from llm_backend.settings import Settings

if TYPE_CHECKING:  # its HTTP client is imported only where there is an upstream
    from llm_backend.backends.upstreams.pool import Upstreams

__all__ = ["opened_upstreams"]


@asynccontextmanager
async def opened_upstreams(
    settings: Settings, configs: Sequence[UpstreamConfig], document: Document
) -> AsyncIterator["Upstreams | None"]:
    """All of them, with the operations that are theirs alone; None where there is none."""
    operations = served_upstreams.operations(settings, configs, document.operations.values())
    if not configs:
        yield None
        return
    from llm_backend.backends.upstreams.http import Upstream
    from llm_backend.backends.upstreams.pool import Upstreams

    async with Upstreams([Upstream(config) for config in configs], operations) as upstreams:
        yield upstreams
