"""The server's own operations: health, readiness, metrics, info and the OpenAPI document."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from starlette.responses import PlainTextResponse, Response

from llm_backend import __version__
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract import as_json
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.status_board import NO_ROOM, engine_states
from llm_backend.engine import EngineState
from llm_backend.engine.messages import ModelKind
from llm_backend.engine_metrics import AdapterStates
from llm_backend.errors import EngineUnavailable, NotServing, ServiceUnavailable
from llm_backend.extras import missing_engine_hint
from llm_backend.store import StoreError, check_schema
from llm_backend.store.jobs import JobCounts

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

STORE_ANSWERS_S = 2.0  # timeout of the database; that of engines is the same
_LOADING = frozenset({EngineState.STARTING, EngineState.RESTARTING})
_TRANSCRIPTION = ModelKind.TRANSCRIPTION.value
CAN_ANSWER = frozenset({"ready", "unloaded"})  # an unloaded model is loaded by its next request


async def get_health(services: Services, request: ApiRequest) -> Response:
    """`GET /healthz`: liveness probe; fails if only a restart of the process can help. The
    probe ignores a failed engine, which is restarted and reported by `/readyz`."""
    unsupervised = [
        model.card.id
        for model in services.registry.local
        if model.engine is not None and model.engine.is_unsupervised
    ]
    if unsupervised:
        raise EngineUnavailable(
            f"{', '.join(unsupervised)} cannot be restarted any more: restart the server.",
        )
    return JsonResponse({"status": "ok"})


async def get_ping(services: Services, request: ApiRequest) -> Response:
    """`GET /ping`: pong."""
    return PlainTextResponse("pong")


async def get_readiness(services: Services, request: ApiRequest) -> Response:
    """`GET /readyz`: readiness probe: a model, an upstream or an image server can answer, the
    database is reachable, and the server is not shutting down. A full folder of temporary files is
    a warning: most requests need none."""
    if services.draining.is_set():
        raise NotServing("The server is being stopped.")
    with translate_store_errors():
        await services.database.check()
        await check_schema(services.database)
    models = {model.card.id: model.engine_state for model in services.registry.usable}
    upstreams = [one for one in (services.upstreams, services.image_servers) if one is not None]
    is_able = any(one.is_available for one in upstreams)
    if not is_able and not CAN_ANSWER.intersection(models.values()):
        reason = _no_model_answers(models, has_upstream=bool(upstreams))
        is_starting = EngineState.STARTING in models.values()
        raise NotServing(reason) if is_starting else ServiceUnavailable(reason)
    ready: api.ServiceStatus = {"status": "ok", "models": models}
    if not await services.temporary_files.has_room():
        ready["warnings"] = [NO_ROOM]
    return JsonResponse(ready)


def _no_model_answers(models: Mapping[str, str], *, has_upstream: bool) -> str:
    if not models and not has_upstream:
        reason = "There is neither a model nor an upstream that could answer."
        return reason + missing_engine_hint()
    states = [f"{name} is {state}" for name, state in models.items()]
    states += ["every upstream is out of service"] if has_upstream else []
    return f"No model can answer yet: {', '.join(states)}."


async def get_metrics(services: Services, request: ApiRequest) -> Response:
    """`GET /metrics`: in the text format of Prometheus."""
    models = services.registry.local
    states = await engine_states(models)
    sizes = {model.card.id: _sizes(model) for model in models}
    services.metrics.engines.set(
        {model: {**state, **sizes[model]} for model, state in states.items()},
        _adapter_states(models),
        are_ready={
            model.card.id: model.engine_state == EngineState.READY
            for model in models
            if model.engine is not None
        },
    )
    await _observe_jobs(services)
    return Response(services.metrics.render(), media_type=services.metrics.media_type)


async def get_info(services: Services, request: ApiRequest) -> Response:
    """`GET /v1/info`: name and version of the server, its models, and what the caller may do."""
    answer: api.ServerInfo = {
        "object": "info",
        "name": "llm-backend",
        "version": __version__,
        "models": [
            one
            for one in (*map(_model_info, services.registry.usable), *_voice_info(services))
            if services.access.admission.may_use(request.caller, one["id"])
        ],
        "has_upstream": services.upstreams is not None,
        "stores_chats": "never"
        if request.caller.has_zero_retention
        else services.settings.store_chats,
        "may_administer": request.caller.may_administer,
        "answers_mcp": services.settings.mcp_api,
        "serves_models_folder": services.settings.serve_models_folder,
        "pulls_models": services.settings.ollama_api,
        "detaches_chats": services.detached_chats.are_possible,
    }
    return JsonResponse(answer)


async def list_operations(services: Services, request: ApiRequest) -> Response:
    """`GET /v1/operations`: all operations: local, relayed to the upstream, or unsupported."""
    return JsonResponse({"object": "list", "data": as_json(services.operations)})


async def get_openapi_document(services: Services, request: ApiRequest) -> Response:
    """`GET /v1/openapi.json`: the document that requests and responses are validated against."""
    return Response(services.document(), media_type="application/json")


async def _observe_jobs(services: Services) -> None:
    """Updates the job metrics; they are missing if the database does not answer in time."""
    backlog: Sequence[JobCounts] = ()
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(STORE_ANSWERS_S):
            backlog = await services.jobs.backlog()
    services.metrics.jobs.set(
        {
            one.kind: {"waiting": one.due, "running": one.running, "later": one.later}
            for one in backlog
        },
        {one.kind: one.lag_s for one in backlog},
    )


def _adapter_states(models: Sequence[LocalModel]) -> AdapterStates:
    """Returns the adapters that are in memory and those that are being loaded, by their ids."""
    states = {
        model.card.id: model.engine_state
        for model in models
        if "adapter_of" in dict(model.card.more)
    }
    return AdapterStates(
        configured=len(states),
        loaded=[name for name, state in states.items() if state == EngineState.READY],
        loading=[name for name, state in states.items() if state in _LOADING],
    )


def _sizes(model: LocalModel) -> dict[str, float]:
    """Returns the engine's slots and the tokens of each; 0 if it is unloaded."""
    info = model.engine.info if model.engine else None
    if info is None:
        return {"slots": 0, "context_tokens": 0}
    return {"slots": info.slots, "context_tokens": info.context_tokens}


def _voice_info(services: Services) -> "list[api.ServedModel]":
    voice = services.registry.espeak_model
    if voice is None or not voice.is_installed:
        return []
    description = str(dict(voice.card.more)["description"])
    return [{"id": voice.card.id, "state": "ready", "kind": "speech", "description": description}]


def _model_info(model: LocalModel) -> "api.ServedModel":
    """Renders a model with the metadata of its file; before it is loaded, its name and state, and
    its kind unless it generates text or embeddings."""
    fields: api.ServedModel = {
        "id": model.card.id,
        "state": cast("api.ModelState", model.engine_state),
    }
    info = model.engine.info if model.engine else None
    if info is None:
        for kind, file in (
            ("speech", model.voice),
            (ModelKind.DIARIZATION.value, model.diarization),
            ("images", model.image_setup.file if model.image_setup else None),
            (_TRANSCRIPTION, model.recognizer),
        ):
            if file is not None:
                return {**fields, "kind": kind, "description": file.description}
        return {**fields, "kind": _TRANSCRIPTION} if model.transcribes else fields
    return {
        **fields,
        "kind": info.kind.value,
        "architecture": info.architecture,
        "description": info.description,
        "parameters": info.parameters,
        "size_bytes": info.size_bytes,
        "vocabulary_size": info.vocabulary_size,
        "context_tokens": info.context_tokens,
        "slots": info.slots,
        "backend": info.backend,
        "plan": info.plan,
    }
