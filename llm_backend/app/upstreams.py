"""Upstreams that the settings name, if any."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llm_backend.app import served_upstreams
from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.contract import Document
from llm_backend.metrics import Metrics
from llm_backend.settings import Settings

if TYPE_CHECKING:  # its HTTP client is imported only with upstreams
    from llm_backend.backends.upstream.pool import UpstreamPool


@asynccontextmanager
async def open_upstreams(
    settings: Settings,
    configs: Sequence[UpstreamConfig],
    document: Document,
    metrics: Metrics,
    shared: Path | None,
    cut_off: asyncio.Event,
) -> AsyncIterator["UpstreamPool | None"]:
    """Opens the pool of all upstreams, with the operations that are bound to one; None without
    upstreams. With several processes, permits come from the permit server in the folder `shared`,
    and `cut_off` is set if it drops this process."""
    operations = served_upstreams.operations(settings, configs, document.operations.values())
    if not configs:
        yield None
        return
    from llm_backend.backends.upstream.http import Upstream
    from llm_backend.backends.upstream.permits.permit_client import PermitClient
    from llm_backend.backends.upstream.pool import UpstreamPool

    upstreams = [Upstream(config, _watch(metrics, config.name)) for config in configs]
    async with AsyncExitStack() as stack:
        permits = None
        if shared is not None:
            permits = await stack.enter_async_context(
                PermitClient.connect(shared, upstreams, cut_off.set)
            )
        pool = UpstreamPool(upstreams, operations, permits, _media_types_of(document))
        yield await stack.enter_async_context(pool)


def _media_types_of(document: Document) -> Callable[[str], frozenset[str]]:
    """Returns the media types of successful answers, by operationId; none for unknown ones."""

    @cache
    def media_types(operation_id: str) -> frozenset[str]:
        if operation_id not in document.operations:
            return frozenset()
        answers = document.operation(operation_id)["responses"]
        good = [answer for status, answer in answers.items() if status.startswith("2")]
        return frozenset(kind for answer in good for kind in answer.get("content", ()))

    return media_types


def _watch(metrics: Metrics, name: str) -> UpstreamObserver:
    return UpstreamObserver(
        add_outstanding=metrics.upstream_outstanding.labels(name).inc,
        count_failure=metrics.upstream_failures.labels(name).inc,
        set_up=metrics.upstream_up.labels(name).set,
    )
