"""Config file watch (hot reload): applies changes of local models while the server runs. The file
is polled, so that no signal is needed, and so is the models folder if its models are served. Other
changes are logged as needing a restart; an invalid file changes nothing. A model that does not fit
into memory is logged, and the others are served.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from llm_backend.app.served_models import ServedModel, build_served_models, check_named_models
from llm_backend.app.upstreams import upstream_aliases
from llm_backend.errors import InvalidRequest
from llm_backend.model_files import list_model_files
from llm_backend.settings import Settings, SettingsError, SettingsSource

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
_APPLIED = frozenset(
    {"models", "models_dir", "aliases", "tool_formats", "draft_models", "context_tokens",
     "context_shift_tokens", "cache_type", "kv_unified", "flash_attention", "prefill_kernels",
     "slots", "batch_tokens", "speculation", "draft_tokens", "threads", "gpu_layers",
     "tensor_split", "main_gpu", "split_mode", "cells_memory_share", "mmap", "mlock", "load_models",
     "idle_unload_s", "image_models"}
)  # fmt: skip

Stamp = tuple[Path, tuple[int, int, int] | None]
ApplySettings = Callable[[Settings, Sequence[ServedModel]], Awaitable[None]]


def merge_changes(running: Settings, latest: Settings) -> Settings:
    """Returns the settings of the start, with the changes that can be applied."""
    return running.model_copy(update={name: getattr(latest, name) for name in _APPLIED})


async def watch_config(
    source: SettingsSource,
    running: Settings,
    serve: ApplySettings,
    every_s: float = POLL_INTERVAL_S,
) -> None:
    """Polls the file of `source`, and the models folder, for ever; `running` are the settings of
    the start. On a change `serve` is called with the merged settings and the models to serve.
    """
    detector = _ChangeDetector(source, running)
    detector.has_changed()
    while True:
        await asyncio.sleep(every_s)
        if await asyncio.to_thread(detector.has_changed):
            await _apply(source, running, serve)


class _ChangeDetector:
    """Compares the config file and the models folder with those of the last call."""

    def __init__(self, source: SettingsSource, running: Settings) -> None:
        self._source = source
        self._running = running
        self._stamps: Sequence[Stamp] | None = None  # None before the first call
        self._is_readable = True

    def has_changed(self) -> bool:
        """Returns True if the file or the folder has changed. False if it cannot be read now."""
        try:
            latest = _stamps(self._source, self._running)
        except OSError as error:  # a folder was removed while it was listed
            if self._is_readable:
                log.warning("config_watch_failed", extra={"reason": str(error)})
            self._is_readable = False
            return False
        self._is_readable = True
        before, self._stamps = self._stamps, latest
        return latest != before


async def _apply(source: SettingsSource, running: Settings, serve: ApplySettings) -> None:
    # `OSError`: a file was deleted meanwhile
    try:
        settings, served = await asyncio.to_thread(_load_models, source)
    except (SettingsError, InvalidRequest, OSError) as error:
        log.error("config_file_refused", extra={"reason": str(error)})
        return
    try:
        await serve(merge_changes(running, settings), served)
    except (InvalidRequest, OSError) as error:
        log.error("model_cannot_load", extra={"reason": str(error)})  # the others are served
    log.info("config_file_applied", extra={"models": ", ".join(one.card.id for one in served)})
    unapplied = [
        name
        for name in Settings.model_fields
        if name not in _APPLIED and getattr(settings, name) != getattr(running, name)
    ]
    if _changes_image_servers(running, settings, served):
        unapplied.append("image_models")
    names = {name for model in served for name in model.names}
    if upstream_aliases(running, names) != upstream_aliases(settings, names):
        unapplied.append("aliases")
    if unapplied:
        log.warning("settings_need_restart", extra={"settings": ", ".join(unapplied)})


def _changes_image_servers(
    running: Settings, latest: Settings, served: Sequence[ServedModel]
) -> bool:
    """Returns True if options of image servers' models have changed: these need a restart."""
    before, after = running.image_models, latest.image_models
    local = {one.card.id for one in served}
    changed = {name for name in before.keys() | after if before.get(name) != after.get(name)}
    return any(one.kind == "sdapi" for one in running.backends) and not changed <= local


def _load_models(source: SettingsSource) -> tuple[Settings, list[ServedModel]]:
    settings = source.load()
    served = build_served_models(settings)
    check_named_models(settings, served)
    return settings, served


def _stamps(source: SettingsSource, running: Settings) -> Sequence[Stamp]:
    """Returns values that change with the config file, or with the models of the folder. Raises
    `OSError`."""
    folder = running.models_folder
    files = [] if source.file is None else [source.file]
    models = list_model_files(folder) if running.serve_models_folder else []
    return [(file, _stamp(file)) for file in (*files, *models)]


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Returns values that change with the file; None while it does not exist."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
