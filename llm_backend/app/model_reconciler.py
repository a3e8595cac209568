"""Reconciliation of the served local models with changed settings."""

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.served_models import ServedModel
from llm_backend.backends.local.local_model import LocalModel, Observe
from llm_backend.backends.local.media import MediaReader
from llm_backend.backends.local.model_handle import LoadQueueLimits, ModelHandle, ModelManager
from llm_backend.backends.registry import Registry
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import SEQUENTIAL_KINDS, ModelKind
from llm_backend.errors import InvalidRequest
from llm_backend.model_files import GgufHeader, HeaderError, generates, read_header

MakeEngineClient = Callable[[EngineConfig], EngineClient]

log = logging.getLogger(__name__)


class ModelReconciler:
    """Reconciles the registry and the model manager with the models to serve."""

    def __init__(
        self,
        registry: Registry,
        manager: ModelManager,
        make_engine: MakeEngineClient,
        observe: Observe,
        queue_limits: LoadQueueLimits,
        planner: ModelPlanner,
        reader: MediaReader | None = None,
        *,
        tokenize_bytes: int = 1024 * 1024,
    ) -> None:
        self._tokenize_bytes = tokenize_bytes
        self._registry = registry
        self._manager = manager
        self._make_engine = make_engine
        self._observe = observe
        self._queue_limits = queue_limits
        self._planner = planner
        self._reader = reader or MediaReader()
        self._served: Sequence[ServedModel] = ()
        self._handles: dict[str, ModelHandle] = {}

    async def serve(self, served: Sequence[ServedModel]) -> None:
        """Serves exactly these models. Present models are kept unless their engine's configuration
        differs; removed models finish their running requests.

        Raises `InvalidRequest` if a model that is to be loaded now can never fit. The model is
        registered nevertheless, and its requests fail with the same error. The other models are
        served.
        """
        before = {model.card.id: model for model in self._served}
        unchanged = {
            model.card.id
            for model in served
            if model.card.id in before and _same_engine(model, before[model.card.id])
        }
        handles = {
            model.card.id: self._handles[model.card.id]
            if model.card.id in unchanged
            else self._handle(model)
            for model in served
        }
        removed = [handle for name, handle in self._handles.items() if name not in unchanged]
        self._served, self._handles = served, handles
        aliases = {alias: model.card.id for model in served for alias in model.aliases}
        self._registry.serve([self._local(one, handles[one.card.id]) for one in served], aliases)
        for handle in removed:
            handle.dismiss()
        await self._start(
            [
                handles[one.card.id]
                for one in served
                if one.card.id not in unchanged and one.loads_at_start
            ]
        )

    async def _start(self, handles: Sequence[ModelHandle]) -> None:
        """Loads all models that fit, even if one of them does not."""
        too_large: InvalidRequest | None = None
        for handle in handles:
            try:
                await handle.start_if_fits()
            except InvalidRequest as error:
                too_large = too_large or error
        if too_large is not None:
            raise too_large

    def _handle(self, model: ServedModel) -> ModelHandle:
        engine = model.engine

        async def plan_bytes() -> int:
            nonlocal engine
            loaded = {
                name
                for name, handle in self._handles.items()
                if handle.engine is not None and name != model.card.id
            }
            plan = functools.partial(self._planner.plan, model, self._served, loaded)
            planned = await asyncio.to_thread(plan)
            engine = planned.engine
            if planned.exceeded_tokens is not None:
                log.warning(
                    "context_beyond_training",
                    extra={
                        "model": model.card.id,
                        "context_tokens": engine.context_tokens,
                        "trained_tokens": planned.exceeded_tokens,
                    },
                )
            return planned.bytes

        def make_engine(path: Path | None) -> EngineClient:
            return self._make_engine(replace(engine, socket_path=path))

        return self._manager.add_model(
            model.card.id,
            make_engine,
            plan_bytes,
            limits=self._queue_limits,
            idle_unload_s=model.idle_unload_s,
        )

    def _local(self, model: ServedModel, handle: ModelHandle) -> LocalModel:
        return LocalModel(
            model.card,
            handle,
            self._observe,
            tool_format=model.tool_format,
            chat_format=model.chat_format,
            personalities=model.personalities,
            personality=model.personality,
            defaults=model.defaults,
            vector_stores=model.vector_stores,
            is_generative=functools.partial(_generates, model),
            read_header=_header_reader(model),
            batch_tokens=model.engine.batch_tokens,
            reader=self._reader,
            tokenize_bytes=self._tokenize_bytes,
            transcribes=model.engine.kind is ModelKind.TRANSCRIPTION,
            voice=model.voice,
            diarization=model.diarization,
            recognizer=model.recognizer,
            image_setup=model.image_setup,
        )


def _same_engine(one: ServedModel, other: ServedModel) -> bool:
    return (
        one.engine,
        one.plan_request,
        one.card.created_at,
        one.idle_unload_s,
        one.memory_bytes,
    ) == (
        other.engine,
        other.plan_request,
        other.card.created_at,  # the time of the file: a replaced file is another model
        other.idle_unload_s,
        other.memory_bytes,
    )


def _header_reader(model: ServedModel) -> Callable[[], GgufHeader] | None:
    """Returns a function that reads the header of the model's file once; None if the model
    has no such file."""
    if model.engine.kind in SEQUENTIAL_KINDS:
        return None
    return functools.cache(lambda: read_header(model.engine.model_path))


def _generates(model: ServedModel) -> bool:
    """True if the settings or the file's header say that the model generates text."""
    if model.engine.kind is not None:
        return model.engine.kind is ModelKind.CHAT
    try:
        return generates(read_header(model.engine.model_path))
    except HeaderError:  # such a file cannot be loaded for embeddings either
        return True
