"""`llm-backend check`: is everything there that serving needs? One line each, and a status."""

import asyncio
import functools
import os
import platform
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llm_backend.cli.options import Config
from llm_backend.settings import Settings, SettingsError, load_settings

__all__ = ["Finding", "check", "findings"]

_START_S = 60.0
_WANTED_FLAGS = ("avx2", "fma", "f16c")  # without these llama.cpp is slow
_ENOUGH_BYTES = 1_000_000_000
_UPSTREAM_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one thing: whether it will do, and a sentence."""

    name: str
    is_well: bool
    sentence: str


def check(config: Config = None) -> None:
    """Look whether serving would work: processor, contract, build, models, database, upstreams.

    Prints one line for each and ends with status 1 if one of them will not do. Nothing is changed.
    """
    ends_well = True
    for finding in findings(config):
        print(f"{'ok  ' if finding.is_well else 'BAD '} {finding.name:<10} {finding.sentence}")
        sys.stdout.flush()
        ends_well = ends_well and finding.is_well
    raise SystemExit(0 if ends_well else 1)


def findings(config: Path | None) -> Iterator[Finding]:
    """What is found, one after the other."""
    yield _run_check("processor", _processor)
    yield _run_check("contract", _contract)
    yield _run_check("build", _build)
    try:
        settings = load_settings({}, config)
    except SettingsError as error:
        yield Finding(name="settings", is_well=False, sentence=str(error))
        return
    yield Finding(
        name="settings", is_well=True, sentence=f"Read{f' from {config}' if config else ''}."
    )
    yield _run_check("models", lambda: _models(settings))
    yield _run_check("folder", lambda: _folder(settings.data_dir))
    yield _run_check("database", lambda: _database(settings))
    yield from _upstreams(settings)
    yield _run_check("port", lambda: _port(settings))


class _CheckFailed(Exception):
    """It will not do; the message is one sentence."""


def _run_check(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, is_well=True, sentence=look())
    except (_CheckFailed, SettingsError) as error:
        return Finding(name=name, is_well=False, sentence=str(error))
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return Finding(name=name, is_well=False, sentence=f"{error.strerror or error}{where}.")


def _processor() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = f"{platform.machine()}, {cores} cores, Python {platform.python_version()}"
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # not on every system
        return f"{told}."
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    missing = [flag for flag in _WANTED_FLAGS if flags and flag not in flags]
    return f"{told}; it lacks {', '.join(missing)} and is slow." if missing else f"{told}."


def _contract() -> str:
    from llm_backend.contract import ContractMissing, load_document

    try:
        document = load_document()
    except ContractMissing as error:
        raise _CheckFailed(str(error)) from error
    return f"{len(document.operations)} operations."


def _build() -> str:
    """The native code loads the built-in model and computes a pass of it."""
    from llm_backend.builtin import BUILTIN_PATH
    from llm_backend.engine import Engine, EngineConfig, EngineStartError
    from llm_backend.engine.sampling.native_nucleus import NativeNucleus

    async def started() -> bool:
        config = EngineConfig(
            model_path=BUILTIN_PATH, slots=1, context_tokens=64, start_timeout_s=_START_S
        )
        async with Engine(config) as engine:
            return (await engine.ready()).extra_buffers

    try:
        repacks = asyncio.run(started())
    except EngineStartError as error:
        raise _CheckFailed(
            f"llama.cpp does not compute: {error} `make clean run` builds it anew."
        ) from error
    told = "llama.cpp computes"
    if not repacks:
        told += ", without repacked weights, with which it dies on this processor"
    if not NativeNucleus.is_there():
        told += "; numpy draws the tokens, which is slower than compiled"
    return f"{told}."


def _models(settings: Settings) -> str:
    from llm_backend.app.local_models import memory_bytes
    from llm_backend.app.served_models import build_served_models, check_named_models
    from llm_backend.model_files import machine_memory_bytes

    served = build_served_models(settings)
    check_named_models(settings, served)
    budget = settings.memory_budget or machine_memory_bytes()
    told = []
    for model in served:
        needed = memory_bytes(model)
        if needed > budget:
            raise _CheckFailed(
                f"`{model.card.id}` would take about {needed / 1e9:.1f} GB, and models may take "
                f"{budget / 1e9:.1f} GB."
            )
        told.append(f"{model.card.id} ({needed / 1e6:,.0f} MB)")
    return f"{', '.join(told) or 'None'}; they may take {budget / 1e9:.1f} GB."


def _folder(folder: Path) -> str:
    place = next(one for one in (folder, *folder.parents) if one.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        raise _CheckFailed(
            f"{place} cannot be written to: set LLM_BACKEND_DATA_DIR to another folder."
        )
    stat = os.statvfs(place)
    free = stat.f_bavail * stat.f_frsize
    if free < _ENOUGH_BYTES:
        raise _CheckFailed(f"{place} has {free / 1e6:.0f} MB left, which is soon full.")
    return f"{folder}, {free / 1e9:,.0f} GB left{'' if folder.exists() else ', will be made'}."


def _database(settings: Settings) -> str:
    from llm_backend.store import Database, StoreError, revisions

    path = settings.data_dir / "llm-backend.sqlite3"
    if settings.database_url is None and not path.exists():
        return f"{path} will be made."

    async def found() -> tuple[str | None, str]:
        async with Database.open(settings.database) as database:
            return await revisions(database)

    try:
        there, needed = asyncio.run(found())
    except StoreError as error:
        raise _CheckFailed(str(error)) from error
    kind = settings.shown_database
    if there == needed:
        return f"{kind}, at revision {there}."
    return f"{kind}, at revision {there or 'none'}; serve brings it to {needed}."


def _upstreams(settings: Settings) -> Iterator[Finding]:
    from llm_backend.app.served_upstreams import upstream_configs
    from llm_backend.cli.api import Api, ApiRequestError

    def asked(base_url: str, key: str | None) -> str:
        try:
            count = len(Api(base_url, key, _UPSTREAM_S).get("/models").get("data") or ())
        except ApiRequestError as error:
            raise _CheckFailed(str(error)) from error
        return f"{base_url} serves {count} models."

    try:
        configs = upstream_configs(settings)
    except SettingsError as error:
        yield Finding(name="upstream", is_well=False, sentence=str(error))
        return
    for one in configs:
        look = functools.partial(asked, one.base_url, one.api_key)
        yield _run_check(f"upstream {one.name}", look)
    if not configs:
        yield Finding(name="upstream", is_well=True, sentence="None is set.")


def _port(settings: Settings) -> str:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            address = f"{settings.host}:{settings.port}"
            raise _CheckFailed(
                f"{address} cannot be listened on: {error.strerror or error}."
            ) from error
    return f"{settings.host}:{settings.port} is free."
