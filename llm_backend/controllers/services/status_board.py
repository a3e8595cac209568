"""Status board: the state of all models, polled once for any number of watching clients."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import msgspec

from llm_backend.backends.images.image_request import ImageProgress
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.model_handle import ModelState
from llm_backend.engine import EngineDown, EngineState
from llm_backend.json_types import JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


# An engine answers between two passes, and few passes take longer. Prometheus waits ten seconds.
ENGINE_TIMEOUT_S = 2.0
NO_ROOM = "The folder of temporary files has no room for uploads."
POLL_INTERVAL_S = 0.5  # short enough for a person who watches, and cheap for an engine
KEEP_ALIVE_S = 15.0  # keep-alive: proxies close streams that are idle for a minute
_UNAVAILABLE = frozenset({EngineState.FAILED, EngineState.RESTARTING, EngineState.CLOSED})


class StatusBoard:
    """Polls the engines, the progress of `drawings`, and the room for temporary files: once for any
    number of watching clients.

    A stream ends when the server begins to shut down; otherwise the server would wait for it.
    """

    def __init__(
        self,
        models: Callable[[], Sequence[LocalModel]],
        stopping: asyncio.Event,
        *,
        has_upstream: bool,
        has_room: Callable[[], Awaitable[bool]],
        drawings: Callable[[], Awaitable[Sequence[ImageProgress]]] | None = None,
    ) -> None:
        self._models = models
        self._has_room = has_room
        self._drawings = drawings
        self._has_upstream = has_upstream
        self._stopping = stopping
        self._poll_lock = asyncio.Lock()
        self._latest: JsonObject = {}
        self._polled_at = -POLL_INTERVAL_S

    async def watch(
        self, may_see: Callable[[str], bool] = lambda _model: True
    ) -> AsyncGenerator[JsonObject | bytes, None]:
        """Yields the status immediately and after each change, without models that the client may
        not see. If nothing changes for a while, yields a comment as keep-alive."""
        sent: JsonObject = {}
        sent_at = 0.0
        while not self._stopping.is_set():
            status = await self.current()
            models = [model for model in status["models"] if may_see(model["id"])]
            drawings = [one for one in status["drawings"] if may_see(one["model"])]
            status = {**status, "models": models, "drawings": drawings}
            if status != sent:
                sent, sent_at = status, time.monotonic()
                yield status
            elif time.monotonic() - sent_at > KEEP_ALIVE_S:
                sent_at = time.monotonic()
                yield b": nothing new\n\n"
            await self._pause()
        yield {"status": "terminated", "info": "The server stops.", "models": [], "drawings": []}

    async def current(self) -> JsonObject:
        """Returns the status, not older than `POLL_INTERVAL_S`."""
        async with self._poll_lock:
            if time.monotonic() - self._polled_at >= POLL_INTERVAL_S:
                self._latest = await self._status()
                self._polled_at = time.monotonic()
        return self._latest

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_INTERVAL_S):
                await self._stopping.wait()
        except TimeoutError:
            return  # time to poll again

    async def _current_drawings(self) -> Sequence[ImageProgress]:
        return () if self._drawings is None else await self._drawings()

    async def _status(self) -> JsonObject:
        served = self._models()
        states, drawings = await asyncio.gather(engine_states(served), self._current_drawings())
        models = [_model(model, states.get(model.card.id)) for model in served]
        summary = _summary(models, has_upstream=self._has_upstream)
        info = summary.info if await self._has_room() else f"{summary.info} {NO_ROOM}"
        return {
            "status": summary.status,
            "info": info,
            "models": models,
            "drawings": [{"model": one.model, "progress": one.share} for one in drawings],
        }


async def engine_states(models: Sequence[LocalModel]) -> dict[str, dict[str, float]]:
    """Returns the status of each engine that answers in time, by model."""
    states = await asyncio.gather(*(_engine_state(model) for model in models))
    return {model.card.id: state for model, state in zip(models, states, strict=True) if state}


async def _engine_state(model: LocalModel) -> dict[str, float] | None:
    if (engine := model.engine) is None:
        return None
    try:
        async with asyncio.timeout(ENGINE_TIMEOUT_S):
            status = await engine.status()
    except (TimeoutError, EngineDown):  # the missing status shows it
        return None
    return {name: value for name, value in msgspec.structs.asdict(status).items() if name != "id"}


def _model(model: LocalModel, state: dict[str, float] | None) -> "api.ServerStatusModel":
    info = model.engine.info if model.engine else None
    return {
        "id": model.card.id,
        "state": cast("api.ModelState", model.engine_state),
        "slots": info.slots if info else None,
        "context_tokens": info.context_tokens if info else None,
        "backend": info.backend if info else None,
        "plan": info.plan if info else None,
        "work": state,
    }


@dataclass(frozen=True, kw_only=True)
class _Summary:
    status: str
    info: str


def _summary(models: "Sequence[api.ServerStatusModel]", *, has_upstream: bool) -> _Summary:
    """Summarizes the states of all models in a status and a sentence."""
    if not models:
        if has_upstream:
            return _Summary(status="idle", info="An upstream answers; no model is served here.")
        return _Summary(status="terminated", info="No model is served here.")
    states: Counter[str] = Counter(model["state"] for model in models)
    work = [model["work"] for model in models if model["work"]]
    running = int(sum(one["running"] for one in work))
    waiting = int(sum(one["waiting"] for one in work))
    if running or waiting:
        return _Summary(status="processing", info=f"{running} running, {waiting} waiting.")
    if _UNAVAILABLE.issuperset(states):
        return _Summary(status="error", info="No model can answer; the server's log says why.")
    if not {EngineState.READY, ModelState.UNLOADED}.intersection(states):
        return _Summary(status="loading", info="Models are being loaded.")
    return _Summary(status="idle", info=f"{states[EngineState.READY]} of {len(models)} ready.")
