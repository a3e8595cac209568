"""Upstreams of the settings, and the routes and operations that lead to them.

Functions raise `SettingsError` for settings that cannot be used.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from llm_backend.backends.registry import ImageServerModel, UpstreamModel
from llm_backend.backends.speech import BUILTIN_VOICE
from llm_backend.backends.upstream.config import (
    CONCURRENCY,
    UpstreamConfig,
    UpstreamKind,
    WireProtocol,
)
from llm_backend.backends.upstream.observer import UpstreamObserver
from llm_backend.backends.upstream.upstream_routing import UpstreamRouting
from llm_backend.close_names import closest_name, did_you_mean
from llm_backend.contract import Document, Operation
from llm_backend.installation import command
from llm_backend.metrics import Metrics
from llm_backend.settings import Settings, SettingsError
from llm_backend.settings.images import ImageModelSettings
from llm_backend.settings.upstream_entry import UpstreamEntry

if TYPE_CHECKING:  # its HTTP client is imported only with upstreams
    from llm_backend.backends.images.image_servers import ImageServers
    from llm_backend.backends.upstream.pool import UpstreamPool


@dataclass(frozen=True, kw_only=True)
class Upstreams:
    """Pools of upstreams: those that get relayed requests, and image servers."""

    relayed: "UpstreamPool | None" = None
    image_servers: "UpstreamPool | None" = None


ConfiguredTarget = UpstreamModel | ImageServerModel | str
"""Target of a route; a string names a local model or `builtin-voice`."""

_API_KEY_UPSTREAM = "openai"  # name of the upstream that `openai_api_key` configures


@asynccontextmanager
async def open_upstreams(
    settings: Settings,
    configs: Sequence[UpstreamConfig],
    document: Document,
    metrics: Metrics,
    shared: Path | None,
    cut_off: asyncio.Event,
) -> AsyncIterator[Upstreams]:
    """Opens the pools of all upstreams, with the operations that are bound to one. With several
    processes, permits come from the permit server in the folder `shared`; `cut_off` is set if that
    server disconnects this process."""
    operations = bound_operations(settings, configs, document.operations.values())
    if not configs:
        yield Upstreams()
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

        async def open_pool(chosen: Sequence[Upstream]) -> UpstreamPool | None:
            if not chosen:
                return None
            names = {one.name for one in chosen}
            bound = {operation: name for operation, name in operations.items() if name in names}
            pool = UpstreamPool(chosen, bound, permits, _media_types_of(document))
            return await stack.enter_async_context(pool)

        yield Upstreams(
            relayed=await open_pool([one for one in upstreams if not one.config.is_image_server]),
            image_servers=await open_pool([one for one in upstreams if one.config.is_image_server]),
        )


@asynccontextmanager
async def open_image_servers(
    settings: Settings, upstreams: Upstreams
) -> AsyncIterator["ImageServers | None"]:
    """Opens the image servers with the options of their models; None if there are none."""
    if upstreams.image_servers is None:
        yield None
        return
    from llm_backend.backends.images.image_request import ImageOptions
    from llm_backend.backends.images.image_servers import ImageServers

    def options(model: ImageModelSettings) -> ImageOptions:
        return ImageOptions(steps=model.steps.model_dump(), parameters=model.parameters)

    servers = ImageServers(
        upstreams.image_servers,
        {name: options(model) for name, model in settings.image_models.items()},
        options(ImageModelSettings()),
        image_bytes=settings.image_limit_bytes,
        is_alone=upstreams.relayed is None,
    )
    try:
        yield servers
    finally:
        await servers.wait_idle()


def _media_types_of(document: Document) -> Callable[[str], frozenset[str]]:
    """Returns a function from operationId to the media types of its successful answers; an
    unknown operation has none."""

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
        record_up=metrics.upstream_up.labels(name).set,
    )


def upstream_configs(settings: Settings) -> list[UpstreamConfig]:
    """Returns all upstreams; the one that `openai_api_key` configures is the last."""
    configs = [_config(one, settings.upstream_check_bytes) for one in settings.backends]
    if settings.openai_api_key is not None:
        configs.append(_api_key_config(settings, settings.openai_api_key.get_secret_value()))
    names = [one.name for one in configs]
    for name in names:
        if names.count(name) > 1:
            by_key = name == _API_KEY_UPSTREAM and settings.openai_api_key is not None
            source = ", the second by `OPENAI_API_KEY`" if by_key else ""
            raise SettingsError(f"Two upstreams are named `{name}`{source}; rename one of them.")
    return configs


def _config(entry: UpstreamEntry, check_bytes: int) -> UpstreamConfig:
    try:
        return UpstreamConfig(
            name=entry.name,
            base_url=entry.base_url,
            api_key=entry.api_key.get_secret_value() if entry.api_key else None,
            headers=[(name, value.get_secret_value()) for name, value in entry.headers.items()],
            pass_headers=entry.pass_headers,
            kind=UpstreamKind(entry.kind),
            api_version=entry.api_version,
            wire=WireProtocol.MESSAGES if entry.kind == "anthropic" else WireProtocol(entry.wire),
            models=entry.models,
            weight=entry.weight,
            concurrency=entry.concurrency or (1 if entry.kind == "sdapi" else CONCURRENCY),
            connect_timeout_s=entry.connect_timeout_s,
            first_byte_timeout_s=entry.first_byte_timeout_s,
            idle_timeout_s=entry.idle_timeout_s,
            total_timeout_s=entry.total_timeout_s,
            honours_idempotency_key=entry.honours_idempotency_key,
            check_bytes=check_bytes,
        )
    except ValueError as error:
        raise SettingsError(f"The upstream `{entry.name}` cannot be used: {error}") from error


def _api_key_config(settings: Settings, api_key: str) -> UpstreamConfig:
    try:
        return UpstreamConfig(
            name=_API_KEY_UPSTREAM,
            base_url=settings.openai_base_url,
            api_key=api_key,
            connect_timeout_s=settings.upstream_connect_timeout_s,
            idle_timeout_s=settings.upstream_idle_timeout_s,
            check_bytes=settings.upstream_check_bytes,
        )
    except ValueError as error:
        raise SettingsError(f"The setting `openai_base_url` cannot be used: {error}") from error


def bound_operations(
    settings: Settings,
    upstreams: Sequence[UpstreamConfig],
    document_operations: Collection[Operation],
) -> Mapping[str, str]:
    """Returns the upstream of each operation and tag that is bound to one."""
    names = {one.name for one in upstreams}
    operation_names = {
        word.lower() for one in document_operations for word in (one.operation_id, one.tag)
    }
    for operation, upstream in settings.operations.items():
        if operation.lower() not in operation_names:
            raise SettingsError(
                f"The setting `operations` names `{operation}`, which is neither an operationId "
                f"nor a tag of the document; see `{command('operations')}`."
            )
        if upstream not in names:
            raise SettingsError(
                f"The setting `operations` gives `{operation}` to `{upstream}`, "
                "which is not an upstream; the upstreams are: "
                f"{', '.join(sorted(names)) or 'none'}."
            )
    return settings.operations


def model_routes(
    settings: Settings, local: Collection[str], upstreams: Sequence[UpstreamConfig]
) -> Mapping[str, Sequence[ConfiguredTarget]]:
    """Returns the targets, in order, of each route and of each alias of an upstream's model."""
    choices = _Choices(upstreams)
    configured = {**upstream_aliases(settings, local), **settings.routes}
    targets: dict[str, Sequence[ConfiguredTarget]] = {}
    for name, written in configured.items():
        if not written:
            raise SettingsError(f"The route `{name}` leads nowhere; name a model.")
        targets[name] = [_target(name, one, local, choices) for one in written]
    return targets


class _Choices:
    """Upstreams that a route may lead to: those for relayed requests, and image servers."""

    def __init__(self, upstreams: Sequence[UpstreamConfig]) -> None:
        self._upstreams = upstreams
        relayed = [one for one in upstreams if not one.is_image_server]
        image_servers = [one for one in upstreams if one.is_image_server]
        self.relayed = {one.name for one in relayed}
        self.image_servers = {one.name for one in image_servers}
        self._relayed_models = UpstreamRouting(relayed)
        self._image_models = UpstreamRouting(image_servers)

    def find(self, model: str) -> UpstreamModel | ImageServerModel | None:
        """Returns the target for a model without `@UPSTREAM`; None if no upstream serves it."""
        if self._image_models.serves(model):
            return ImageServerModel(model=model)
        return UpstreamModel(model=model) if self._relayed_models.serves(model) else None

    def lists(self, model: str) -> bool:
        """Returns True if the `models` of an upstream match a name."""
        return any(one.matches(model) for one in self._upstreams)


def _target(
    route: str, written: str, local: Collection[str], choices: _Choices
) -> ConfiguredTarget:
    # `model` is empty if no upstream is named, also for a model whose own name begins with `@`.
    model, _, upstream = written.rpartition("@")
    if model and upstream in choices.relayed:
        return UpstreamModel(model=model, upstream=upstream)
    if model and upstream in choices.image_servers:
        return ImageServerModel(model=model, upstream=upstream)
    if written in local or written == BUILTIN_VOICE:
        return written
    if model and not choices.lists(written):
        hint = did_you_mean(closest_name(upstream, choices.relayed | choices.image_servers))
        raise SettingsError(
            f"The route `{route}` leads to `{written}`, but there is no upstream `{upstream}`."
            f"{hint}"
        )
    target = choices.find(written)
    if target is None:
        raise SettingsError(
            f"The route `{route}` leads to `{written}`, which is not a local model and which no "
            f"upstream serves.{did_you_mean(closest_name(written, local))}"
        )
    return target


def upstream_aliases(settings: Settings, local: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Returns the aliases of models that are not local, each with its model."""
    pairs = [alias.partition("=") for alias in settings.aliases]
    return {name: (model,) for name, _, model in pairs if model and model not in local}
