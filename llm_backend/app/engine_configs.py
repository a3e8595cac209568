"""Engine configurations of local models, and the requests for their memory plans.

Functions raise `SettingsError` for a model that cannot be served.
"""

from pathlib import Path
from typing import Any, TypeVar

from llm_backend.app.per_model_settings import NamedProjector
from llm_backend.backends.local.image_setup import LocalImageSetup
from llm_backend.engine import EngineConfig
from llm_backend.engine.messages import BLOCK_S, SEQUENTIAL_KINDS, ModelKind, PrefixLimits
from llm_backend.extras import install_command, is_installed
from llm_backend.home_folder import expand_home
from llm_backend.model_files import (
    DiarizationFiles,
    DiffusionFile,
    HeaderError,
    ModelFile,
    PlanRequest,
    RecognizerFiles,
    VoiceFiles,
    WhisperHeader,
    is_whisper_file,
    read_header,
    read_model_file,
)
from llm_backend.settings import Settings, SettingsError
from llm_backend.settings.model_entry import ModelSettings

_KINDS = {
    "chat": ModelKind.CHAT,
    "embeddings": ModelKind.EMBEDDING,
    "rerank": ModelKind.RERANK,
}

_HANG_BLOCKS = 2  # least `hang_timeout_s` of a diarization model, in lengths of a block

_T = TypeVar("_T")


def build_engine_config(
    settings: Settings,
    entry: ModelSettings,
    path: Path,
    file: ModelFile,
    flat_draft: Path | None,
    projector: NamedProjector | None,
    image_setup: LocalImageSetup | None,
) -> EngineConfig:
    """Returns the configuration of a model's engine. `file` describes the file at `path`;
    `flat_draft` is the draft model that the setting `draft_models` names for it."""
    shared = _shared_settings(settings, entry)
    draft = flat_draft if entry.draft_model is None else expand_home(entry.draft_model)
    if draft is not None:
        if not shared["speculation"]:
            raise SettingsError(f"The draft model `{draft}` needs `speculation`, which is off.")
        check_gguf_file(draft)
    gpu_layers = shared.pop("gpu_layers", None)
    if gpu_layers is None and isinstance(file, WhisperHeader | DiffusionFile):
        gpu_layers = -1  # a device is used if the library has one
    if image_setup is not None:
        shared["queue_deadline_s"] = settings.drawing_deadline_s  # requests of all processes
    kind = _kind(entry, file, projector)
    if kind is ModelKind.DIARIZATION:  # its worker answers no probe while it computes a block
        least_s = _HANG_BLOCKS * BLOCK_S
        shared["hang_timeout_s"] = max(shared.get("hang_timeout_s", least_s), least_s)
    return EngineConfig(
        **shared,
        model_path=path,
        draft_model_path=draft,
        projector_path=projector.path if projector else None,
        image_tokens=entry.image_tokens,
        kind=kind,
        drawing_parts={}
        if image_setup is None
        else {k: str(v) for k, v in image_setup.parts.items()},
        gpu_layers=None if gpu_layers == -1 else gpu_layers or 0,  # a plan follows if unset
        prefixes=_prefixes(settings),
        prefix_ram_limit_bytes=settings.prefix_ram_bytes,
        labels_limit=settings.decision_labels_limit,
        log_level=settings.log_level.upper(),
    )


def _shared_settings(settings: Settings, entry: ModelSettings) -> dict[str, Any]:
    """Returns the settings that `EngineConfig` has by the same names, except unset ones. The value
    in the model's entry overrides the value for all models."""
    names = Settings.model_fields.keys() & set(EngineConfig.__struct_fields__) - {"log_level"}
    values = {name: override(getattr(entry, name, None), getattr(settings, name)) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _kind(
    entry: ModelSettings, file: ModelFile, projector: NamedProjector | None
) -> ModelKind | None:
    """Returns the kind of the model; None if the engine reads it from the file."""
    match file:
        case WhisperHeader() | RecognizerFiles():
            return ModelKind.TRANSCRIPTION
        case VoiceFiles():
            return ModelKind.SPEECH
        case DiarizationFiles():
            return ModelKind.DIARIZATION
        case DiffusionFile():
            return ModelKind.IMAGES
    if projector is not None and projector.speaks:
        return ModelKind.SPEECH
    return _KINDS[entry.role] if entry.role else None


def build_plan_request(
    settings: Settings, entry: ModelSettings, engine: EngineConfig
) -> PlanRequest | None:
    """Returns the request for a memory plan, with the settings that bind it; None for a model that
    needs no plan."""
    if engine.kind in SEQUENTIAL_KINDS:
        return None
    return PlanRequest(
        slots=override(entry.slots, settings.slots),
        context_tokens=engine.context_tokens,
        gpu_layers=override(entry.gpu_layers, settings.gpu_layers),
        tensor_split=engine.tensor_split,
        main_gpu=engine.main_gpu,
        split_mode=engine.split_mode,
        batch_tokens=engine.batch_tokens,
        output_rows=engine.output_rows,
        cache_type=engine.cache_type,
        kv_unified=engine.kv_unified,
        has_flash_attention=engine.flash_attention is not False,
        cells_share=settings.cells_memory_share,
        generated_tokens_bytes=engine.generated_tokens_bytes,
        draft_tokens=0 if engine.draft_model_path else engine.drafted_tokens,
    )


def _prefixes(settings: Settings) -> PrefixLimits | None:
    """Returns folder and limits of prefix files; None if they are off."""
    if settings.prefix_cache_dir is None:
        return None
    return PrefixLimits(
        folder=str(settings.prefix_cache_dir),
        bytes=settings.prefix_cache_bytes,
        tokens=settings.prefix_cache_min_tokens,
    )


def override(own: _T | None, flat: _T) -> _T:
    """Returns the value in the model's entry, or else the value for all models."""
    return flat if own is None else own


def read_servable_file(path: Path) -> ModelFile:
    """Reads a model's file. Raises `SettingsError` for a file that cannot be served."""
    if is_whisper_file(path) and not is_installed("transcription"):
        raise SettingsError(
            f"{path} is a Whisper model, which needs the extra: {install_command('transcription')}."
        )
    try:
        return read_model_file(path)
    except HeaderError as error:
        raise SettingsError(str(error)) from error


def check_gguf_file(path: Path) -> None:
    """Raises `SettingsError` for a file that is not GGUF, or is truncated."""
    try:
        read_header(path)
    except HeaderError as error:
        raise SettingsError(str(error)) from error
