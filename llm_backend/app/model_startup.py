"""Start of the local models, which stay open as long as the application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from llm_backend.app.config_watch import ApplySettings, watch_config
from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.model_reconciler import MakeEngineClient, ModelReconciler
from llm_backend.app.served_models import ServedModel, build_served_models
from llm_backend.backends.images.local_images import ImageUsage, LocalImages
from llm_backend.backends.local.local_model import Observe
from llm_backend.backends.local.media import MediaBounds, MediaReader
from llm_backend.backends.local.model_handle import LoadQueueLimits, ModelManager
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.backends.local.shared_manager import ModelManagerClient
from llm_backend.backends.registry import Registry
from llm_backend.backends.speech import (
    OPENAI_VOICES,
    Espeak,
    EspeakModel,
    SpeechSynthesizer,
    SpeechUsage,
)
from llm_backend.backends.transcription import LocalTranscription, TranscriptUsage
from llm_backend.background_tasks import background_task
from llm_backend.engine import EngineClient
from llm_backend.engine.process.device_list import find_devices
from llm_backend.errors import InvalidRequest
from llm_backend.fair_queue import FairSemaphore
from llm_backend.metrics import Metrics
from llm_backend.settings import Settings, SettingsError, SettingsSource, settings_from_json
from llm_backend.settings.audio import NO_VOICE

log = logging.getLogger(__name__)

SetPersonality = Callable[[str, str], Awaitable[None]]
"""Sets the default personality of a model, for requests that name none."""


@asynccontextmanager
async def open_models(
    settings: Settings,
    served: Sequence[ServedModel],
    shared: Path | None,
    source: SettingsSource | None,
    registry: Registry,
    observe: Observe,
    cut_off: asyncio.Event,
) -> AsyncIterator[SetPersonality]:
    """Opens the local models of the settings in the registry, and begins to load those that fit.
    If another process owns the engines, changes come from it, and `cut_off` is set when it drops
    this process; otherwise changes come from the config file of `source`.
    """
    local_models = partial(
        _local_models, settings, registry, observe, MediaReader(_media_bounds(settings))
    )
    async with AsyncExitStack() as stack:
        if shared is not None:
            manager_client = await stack.enter_async_context(ModelManagerClient.connect(shared))
            planner = ModelPlanner(settings.memory_budget)  # the owner of the engines plans them
            models = local_models(manager_client, EngineClient.for_remote_worker, planner)
            await models.serve(served)
            manager_client.start(_ModelUpdates(models, registry, cut_off))
            await manager_client.wait_until_connected()
            yield manager_client.choose_personality
            return
        planner = await open_planner(settings)
        manager = await stack.enter_async_context(LocalModelManager(planner.budget_bytes))
        models = local_models(manager, EngineClient, planner)
        await serve_first(models, served)

        async def serve(_settings: Settings, served: Sequence[ServedModel]) -> None:
            await models.serve(served)

        async def choose(model: str, personality: str) -> None:
            registry.choose_personality(model, personality)

        await stack.enter_async_context(open_config_watch(source, settings, serve))
        yield choose


def _local_models(
    settings: Settings,
    registry: Registry,
    observe: Observe,
    reader: MediaReader,
    manager: ModelManager,
    make_engine: MakeEngineClient,
    planner: ModelPlanner,
) -> ModelReconciler:
    return ModelReconciler(
        registry,
        manager,
        make_engine,
        observe,
        load_queue_limits(settings),
        planner,
        reader,
        tokenize_bytes=settings.tokenize_limit_bytes,
    )


async def serve_first(models: ModelReconciler, served: Sequence[ServedModel]) -> None:
    """Serves the first models. Raises `SettingsError` for a model that can never fit."""
    try:
        await models.serve(served)
    except InvalidRequest as error:
        raise SettingsError(str(error)) from error


async def open_planner(settings: Settings) -> ModelPlanner:
    """Measures the machine, which must hold no model yet, and returns a planner."""
    return await asyncio.to_thread(ModelPlanner, settings.memory_budget, find_devices)


def load_queue_limits(settings: Settings) -> LoadQueueLimits:
    """Returns the limits of requests that wait for a model to be loaded."""
    return LoadQueueLimits(waiting_limit=settings.queue_limit, deadline_s=settings.load_deadline_s)


def build_synthesizer(settings: Settings, metrics: Metrics) -> SpeechSynthesizer:
    """Builds the synthesizer of local voices."""
    permits = FairSemaphore(
        settings.speech_concurrency,
        depth=settings.queue_limit,
        timeout_s=settings.queue_deadline_s,
    )

    def observe(model: str, usage: SpeechUsage) -> None:
        metrics.record_speech(model, queue_s=usage.queue_s, audio_s=usage.audio_s)

    return SpeechSynthesizer(permits, observe)


def build_local_images(settings: Settings, metrics: Metrics) -> LocalImages:
    """Builds local image generation: one request at a time in each process, as it takes all
    processors."""
    permits = FairSemaphore(1, depth=settings.queue_limit, timeout_s=settings.drawing_deadline_s)

    def observe(model: str, usage: ImageUsage) -> None:
        metrics.record_drawing(
            model, queue_s=usage.queue_s, images=usage.images, elapsed_s=usage.elapsed_s
        )

    return LocalImages(permits, observe)


def build_espeak_model(settings: Settings, synthesizer: SpeechSynthesizer) -> EspeakModel | None:
    """Builds the model of `espeak-ng`; None if it is off. Its program and codecs are looked for at
    its first request, not at the start. Raises `SettingsError` for voices that are not
    `NAME=VOICE`."""
    if settings.voice_program == NO_VOICE:
        return None
    pairs = [entry.partition("=") for entry in settings.voices]
    for name, _, voice in pairs:
        if not name or not voice:
            raise SettingsError(f"The voice `{name or voice}` has to be `NAME=VOICE`.")
    named = {name: voice for name, _, voice in pairs}
    espeak = Espeak(
        settings.voice_program,
        timeout_s=settings.speech_timeout_s,
        others={**OPENAI_VOICES, **named},
    )
    return EspeakModel(espeak, synthesizer)


def build_transcriber(settings: Settings, metrics: Metrics) -> LocalTranscription:
    """Builds the transcriber of local models."""
    permits, decoding = (
        FairSemaphore(
            settings.transcription_concurrency,
            depth=settings.queue_limit,
            timeout_s=settings.queue_deadline_s,
        )
        for _ in range(2)
    )

    def observe(model: str, usage: TranscriptUsage) -> None:
        metrics.record_transcription(
            model, queue_s=usage.queue_s, audio_s=usage.audio_s, elapsed_s=usage.elapsed_s
        )

    return LocalTranscription(permits, observe, decoding=decoding, heard_s=settings.audio_limit_s)


@asynccontextmanager
async def open_config_watch(
    source: SettingsSource | None, settings: Settings, serve: ApplySettings
) -> AsyncIterator[None]:
    """Passes changes of the config file and of the models folder, if they are used, to `serve`."""
    if source is None or (source.file is None and not settings.serve_models_folder):
        yield
        return
    async with background_task(watch_config(source, settings, serve)):
        yield


class _ModelUpdates:
    """Applies decisions of the process that owns the engines."""

    def __init__(self, models: ModelReconciler, registry: Registry, cut_off: asyncio.Event) -> None:
        self._models = models
        self._registry = registry
        self._cut_off = cut_off

    def choose_personalities(self, personalities: dict[str, str]) -> None:
        """Sets the default personalities, by model."""
        for model in self._registry.local:
            personality = personalities.get(model.card.id)
            if personality in model.personalities:
                self._registry.choose_personality(model.card.id, personality)

    async def apply_settings(self, settings: str) -> None:
        """Applies changed settings of local models."""
        try:
            served = await asyncio.to_thread(
                lambda: build_served_models(settings_from_json(settings))
            )
            await self._models.serve(served)
        # `OSError`: a file was deleted meanwhile, for instance
        except (SettingsError, InvalidRequest, OSError) as error:
            log.error("config_file_refused", extra={"reason": str(error)})

    def disconnect(self) -> None:
        """Notes that the owner has dropped this process."""
        self._cut_off.set()


def _media_bounds(settings: Settings) -> MediaBounds:
    return MediaBounds(
        count=settings.media_limit,
        image_bytes=settings.image_limit_bytes,
        image_pixels=settings.image_limit_pixels,
        audio_bytes=settings.audio_limit_bytes,
        audio_s=settings.audio_limit_s,
        hosts=settings.image_hosts,
        fetch_s=settings.image_timeout_s,
    )
