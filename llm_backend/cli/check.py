"""`llm-backend check`: checks everything that `serve` needs; prints a line for each check."""

import asyncio
import contextlib
import functools
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llm_backend.cli.check_media import check_drawing, check_voice
from llm_backend.cli.options import Config
from llm_backend.cli.setting_flags import settings_from_flags, with_setting_flags
from llm_backend.extras import install_command, is_installed
from llm_backend.installation import rebuild_command, reinstall_command
from llm_backend.operating_system import PROC, read_kernel_file, usable_cores
from llm_backend.settings import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from llm_backend.backends.upstream.config import UpstreamConfig
    from llm_backend.engine.messages import ModelInfo

_START_TIMEOUT_S = 60.0
_FAST_FLAGS = ("avx2", "fma", "f16c")  # without these llama.cpp is slow
_MIN_FREE_BYTES = 1_000_000_000
_UPSTREAM_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check: success or failure, and a sentence."""

    name: str
    is_ok: bool
    sentence: str


@with_setting_flags
def check(config: Config = None, **flags: Any) -> None:
    """Check processor, contract, build, settings, models, voice, images, folder, database, keys,
    upstreams, routes, port.

    Takes the flags of `serve`. Prints one line for each and exits with status 1 if a check fails.
    Changes nothing. If the settings are invalid, nothing after them is checked.
    """
    all_ok = True
    for finding in findings(config, settings_from_flags(flags)):
        print(f"{'ok  ' if finding.is_ok else 'BAD '} {finding.name:<10} {finding.sentence}")
        sys.stdout.flush()
        all_ok = all_ok and finding.is_ok
    raise SystemExit(0 if all_ok else 1)


def findings(
    config: Path | None, flags: Mapping[str, object] = MappingProxyType({})
) -> Iterator[Finding]:
    """Run all checks in order and yield their results."""
    yield _run_check("processor", _processor)
    yield _run_check("contract", _contract)
    yield _run_check("build", _build)
    try:
        settings = load_settings(flags, config)
    except SettingsError as error:
        yield Finding(name="settings", is_ok=False, sentence=str(error))
        return
    yield Finding(
        name="settings", is_ok=True, sentence=f"Read{f' from {config}' if config else ''}."
    )
    yield _run_check("models", lambda: _models(settings))
    yield _run_check("voice", lambda: check_voice(settings))
    yield _run_check("images", lambda: check_drawing(settings))
    yield _run_check("folder", lambda: _folder(settings.data_dir))
    yield _run_check("database", lambda: _database(settings))
    yield _run_check("keys", lambda: _keys(settings, config))
    yield from _upstreams(settings)
    yield _run_check("routes", lambda: _routes(settings))
    yield _run_check("port", lambda: _port(settings))


class _CheckFailed(Exception):
    """A check failed; the message is one sentence."""


def _run_check(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, is_ok=True, sentence=check())
    except (_CheckFailed, SettingsError) as error:
        return Finding(name=name, is_ok=False, sentence=str(error))
    except OSError as error:
        path = f": {error.filename}" if error.filename else ""
        return Finding(name=name, is_ok=False, sentence=f"{error.strerror or error}{path}.")


def _processor() -> str:
    machine, version = platform.machine(), platform.python_version()
    summary = f"{machine}, {usable_cores()} cores, Python {version}"
    text = read_kernel_file(PROC / "cpuinfo")
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    missing = [flag for flag in _FAST_FLAGS if flags and flag not in flags]
    if missing:
        return f"{summary}; without {', '.join(missing)} llama.cpp is slow."
    return f"{summary}."


def _contract() -> str:
    from llm_backend.contract import ContractMissing, load_document

    try:
        document = load_document()
    except ContractMissing as error:
        raise _CheckFailed(str(error)) from error
    return f"{len(document.operations)} operations."


def _build() -> str:
    """Load the built-in model with the native code and compute one pass."""
    if not is_installed("local"):
        return f"This is a gateway without the local engine; {install_command('local')} adds it."
    from llm_backend.builtin import BUILTIN_PATH
    from llm_backend.engine import EngineClient, EngineConfig, EngineStartError
    from llm_backend.engine.messages import ModelInfo

    async def start_engine() -> ModelInfo:
        config = EngineConfig(
            model_path=BUILTIN_PATH, slots=1, context_tokens=64, start_timeout_s=_START_TIMEOUT_S
        )
        async with EngineClient(config) as engine:
            return await engine.ready()

    try:
        info = asyncio.run(start_engine())
    except EngineStartError as error:
        raise _CheckFailed(
            f"llama.cpp does not compute: {error} `{rebuild_command()}` rebuilds it."
        ) from error
    return describe_build(info)


def describe_build(info: "ModelInfo") -> str:
    """Describe how the native code computes, and what would make it faster."""
    from llm_backend.engine.messages import MissingKernels
    from llm_backend.engine.sampling.native_nucleus import NativeNucleus

    summary = f"llama.cpp computes on {info.backend}"
    if info.extra_buffers is False:
        summary += ", without repacked weights, because it crashes with them on this processor"
    if not NativeNucleus.is_available():
        summary += "; numpy samples the tokens, more slowly than the compiled sampler"
    if info.missing_kernels is not None:
        summary += "; it computes prompts without the prefill kernels, because "
        summary += info.missing_kernels
    if info.missing_kernels is MissingKernels.NOT_COMPILED:
        summary += f": install a C compiler (`cc`), then `{reinstall_command()}`"
    return f"{summary}."


def _models(settings: Settings) -> str:
    from llm_backend.app.model_planning import ModelPlanner
    from llm_backend.app.served_models import build_served_models, check_named_models
    from llm_backend.engine.process.device_list import find_devices

    served = build_served_models(settings)
    check_named_models(settings, served)
    planner = ModelPlanner(settings.memory_budget, find_devices)
    budget = planner.budget_bytes
    plans = []
    for model in served:
        planned = planner.plan(model, served)
        needed = planned.bytes
        if needed > budget:
            raise _CheckFailed(
                f"`{model.card.id}` needs about {needed / 1e9:.1f} GB, and the memory budget is "
                f"{budget / 1e9:.1f} GB."
            )
        plan = f": {planned.engine.plan}" if planned.engine.plan else "."
        plans.append(f"{model.card.id} ({needed / 1e6:,.0f} MB){plan}")
    return f"{' '.join(plans) or 'None.'} The memory budget is {budget / 1e9:.1f} GB."


def _folder(folder: Path) -> str:
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise _CheckFailed(
            f"{existing} is not writable: set LLM_BACKEND_DATA_DIR to another folder."
        )
    stat = os.statvfs(existing)
    free = stat.f_bavail * stat.f_frsize
    if free < _MIN_FREE_BYTES:
        raise _CheckFailed(f"{existing} has only {free / 1e6:.0f} MB left.")
    return f"{folder}, {free / 1e9:,.0f} GB left{'' if folder.exists() else ', will be created'}."


def _database(settings: Settings) -> str:
    from llm_backend.store import StoreError

    if (path := settings.missing_sqlite_file) is not None:
        if settings.database_url is not None and not path.parent.exists():
            raise _CheckFailed(f"The folder {path.parent} does not exist.")
        return f"{path} will be created."
    try:
        current, needed = asyncio.run(_usable_revisions(settings))
    except StoreError as error:
        raise _CheckFailed(str(error)) from error
    kind = settings.public_database_url
    if current == needed:
        return f"{kind}, at revision {current}."
    return f"{kind}, at revision {current or 'none'}; `serve` migrates it to {needed}."


async def _usable_revisions(settings: Settings) -> tuple[str | None, str]:
    """Return the revision of the database's tables and the needed one. Raises `StoreError`, also
    for tables that `serve` cannot migrate."""
    from llm_backend.store import Database, OldSchema, check_schema, current_and_needed_revision

    async with Database.open(settings.database) as database:
        with contextlib.suppress(OldSchema):
            await check_schema(database)
        return await current_and_needed_revision(database)


def _keys(settings: Settings, config: Path | None) -> str:
    from llm_backend.access.wiring import keyless_message
    from llm_backend.store import StoreError

    if settings.api_keys:
        return "The settings have keys."
    try:
        count = asyncio.run(_count_keys(settings))
    except StoreError as error:
        raise _CheckFailed(str(error)) from error
    if count == 0 and (settings.is_loopback or settings.allow_open):
        return "None is needed: without one, the server is open to its clients."
    if count == 0:
        raise _CheckFailed(keyless_message(settings, config))
    return "The database has keys." if count else "Not known before the database is migrated."


async def _count_keys(settings: Settings) -> int | None:
    """Return the number of keys in the database, without changing it; None if it has another
    revision. Raises `StoreError`."""
    from llm_backend.store import Database, current_and_needed_revision
    from llm_backend.store.administration import Administration

    if settings.missing_sqlite_file is not None:
        return 0
    async with Database.open(settings.database) as database:
        current, needed = await current_and_needed_revision(database)
        if current is None:
            return 0
        if current != needed:
            return None
        return len((await Administration(database).load_snapshot(())).keys)


def _routes(settings: Settings) -> str:
    """Check the targets of routes and aliases, and the upstreams of operations."""
    from llm_backend.app.served_models import build_served_models
    from llm_backend.app.upstreams import bound_operations, model_routes, upstream_configs
    from llm_backend.contract import ContractMissing, load_document

    try:
        served = build_served_models(settings)
        operations = load_document().operations.values()
    except (SettingsError, ContractMissing):
        return "Not known without the models and the contract."  # which have checks of their own
    configs = upstream_configs(settings)
    names = {name for model in served for name in model.names}
    routes = model_routes(settings, names, configs)
    bound = bound_operations(settings, configs, operations)
    return f"{len(routes)} routes, {len(bound)} operations of named upstreams."


def _upstreams(settings: Settings) -> Iterator[Finding]:
    from llm_backend.app.upstreams import upstream_configs

    try:
        configs = upstream_configs(settings)
    except SettingsError as error:
        yield Finding(name="upstream", is_ok=False, sentence=str(error))
        return
    for one in configs:
        yield _run_check(f"upstream {one.name}", functools.partial(_upstream, one))
    if not configs:
        yield Finding(name="upstream", is_ok=True, sentence=_no_upstream(settings))


def _upstream(config: "UpstreamConfig") -> str:
    """Request the list of models as the relay does, with the same address and headers."""
    from llm_backend.backends.upstream.azure import azure_path, azure_query
    from llm_backend.backends.upstream.config import UpstreamKind
    from llm_backend.backends.upstream.http.session import configured_headers
    from llm_backend.backends.upstream.model_list import list_address
    from llm_backend.cli.api import Api, ApiRequestError

    path, query = list_address(config)
    if config.kind is UpstreamKind.AZURE:
        path, query = azure_path(path, None), azure_query(query, config.api_version)
    try:
        headers = configured_headers(config)
        api = Api(config.base_url, None, _UPSTREAM_TIMEOUT_S, key_hint="", headers=headers)
        listed = api.get(f"{path}?{query}" if query else path)
    except ApiRequestError as error:
        if error.status == HTTPStatus.NOT_FOUND and not config.lists_models:
            return f"{config.base_url} answers."  # the relay needs no list of it
        raise _CheckFailed(str(error)) from error
    except ValueError as error:  # its message may contain the key
        raise _CheckFailed(
            f"{config.base_url} cannot be requested: its port, its key or a header is invalid."
        ) from error
    if not config.lists_models:
        return f"{config.base_url} answers."
    models = listed.get("data") if isinstance(listed, dict) else listed
    count = len(models) if isinstance(models, list) else 0
    return f"{config.base_url} serves {count} models."


def _no_upstream(settings: Settings) -> str:
    if "openai_base_url" in settings.model_fields_set:
        return (
            "None is configured: OPENAI_BASE_URL needs an OPENAI_API_KEY, any text if that server "
            "needs none."
        )
    return "None is configured."


def _port(settings: Settings) -> str:
    from llm_backend.server import CannotServe, listening

    try:
        with listening(settings):
            return f"{settings.host}:{settings.port} is free."
    except CannotServe as error:
        raise _CheckFailed(str(error)) from error
