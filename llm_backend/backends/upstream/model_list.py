"""Cached list of an upstream's models."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import orjson

from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.errors import UpstreamFailed
from llm_backend.json_types import JsonObject

Models = list[JsonObject]

_CHECKPOINTS_PATH = "/sdapi/v1/sd-models"
LATEST_TIME_S = 1 << 33  # in the year 2242
LIST_BYTES = 16 * 1024 * 1024
_FAILURE_TTL_S = 2.0


class ModelList:
    """Cache of the result of `fetch`, at most `ttl_s` old; concurrent callers share one fetch."""

    def __init__(self, fetch: Callable[[], Coroutine[Any, Any, Models]], ttl_s: float) -> None:
        self._fetch = fetch
        self._ttl_s = ttl_s
        self._fetch_task: asyncio.Task[Models] | None = None
        self._expires_at = 0.0

    async def models(self) -> Models:
        """Returns the list. Raises as `fetch`; a failure is cached for two seconds."""
        now = asyncio.get_running_loop().time()
        if self._fetch_task is None or (self._fetch_task.done() and now >= self._expires_at):
            self._fetch_task = asyncio.create_task(self._fetch())
            self._fetch_task.add_done_callback(self._set_expiry)
        return await asyncio.shield(self._fetch_task)

    def close(self) -> None:
        """Cancels a running fetch."""
        if self._fetch_task is not None:
            self._fetch_task.cancel()

    def _set_expiry(self, fetched: asyncio.Task[Models]) -> None:
        has_failed = fetched.cancelled() or fetched.exception() is not None
        ttl_s = min(_FAILURE_TTL_S, self._ttl_s) if has_failed else self._ttl_s
        self._expires_at = fetched.get_loop().time() + ttl_s


def list_address(config: UpstreamConfig) -> tuple[str, str]:
    """Returns the path and the query of an upstream's list of models, before they are converted to
    Azure's."""
    if config.is_image_server:
        return _CHECKPOINTS_PATH, ""
    # Anthropic lists 20 models without a limit.
    return "/models", "limit=1000" if config.kind is UpstreamKind.ANTHROPIC else ""


def parse_models(status: int, body: bytes) -> Models:
    """Parses a list of models; a time that is missing or out of range is 0. Raises
    `UpstreamFailed` if it is no list."""
    listed = _parse(status, body)
    data = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(data, list):
        raise UpstreamFailed(f"The upstream gave no list of models (status {status}).")
    return [
        _from_anthropic(model) if model.get("type") == "model" else _with_time(model)
        for model in data
        if isinstance(model, dict) and isinstance(model.get("id"), str)
    ]


def parse_checkpoints(status: int, body: bytes) -> Models:
    """Parses an image server's list of checkpoints; `title` is the name that selects one. Raises
    `UpstreamFailed` if it is invalid."""
    listed = _parse(status, body)
    if not isinstance(listed, list):
        raise UpstreamFailed(f"The image server gave no list of checkpoints (status {status}).")
    return [
        {
            "id": one["model_name"],
            "object": "model",
            "created": 0,
            "owned_by": "image-server",
            "title": one["title"],
            "output_modalities": ["image"],
        }
        for one in listed
        if isinstance(one, dict)
        and isinstance(one.get("model_name"), str)
        and isinstance(one.get("title"), str)
    ]


def _parse(status: int, body: bytes) -> object:
    """Returns the JSON of a successful answer; None for anything else."""
    try:
        return orjson.loads(body) if status == 200 else None
    except orjson.JSONDecodeError:
        return None


def _with_time(model: JsonObject) -> JsonObject:
    created_at = model.get("created")
    if isinstance(created_at, int | float) and 0 <= created_at < LATEST_TIME_S:
        return {**model, "created": int(created_at)}
    return {**model, "created": 0}


def _from_anthropic(model: JsonObject) -> JsonObject:
    """Returns the model object of OpenAI's API for one of Anthropic's."""
    try:
        created_at = int(datetime.fromisoformat(model["created_at"]).timestamp())
    except (KeyError, TypeError, ValueError, OverflowError):
        created_at = 0  # unknown
    return {
        "id": model["id"],
        "object": "model",
        "created": max(0, created_at),
        "owned_by": "anthropic",
    }
