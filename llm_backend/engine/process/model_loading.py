"""Loading of a worker's model, with the engine of its kind."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_backend.engine.embedding.embedder import Embedder
from llm_backend.engine.generator import Generator
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache, default_limit_bytes
from llm_backend.engine.kv_cache.prefix_files import PrefixFolder, open_folder
from llm_backend.engine.messages import SEQUENTIAL_KINDS, LoadModel, ModelInfo, ModelKind
from llm_backend.engine.model import Model
from llm_backend.engine.process.outbox import Outbox
from llm_backend.engine.sequential_engine import SequentialEngine, SequentialModel
from llm_backend.engine.speculation.draft_source import DraftSource
from llm_backend.engine.speculation.drafter import Drafter
from llm_backend.engine.speculation.head_drafter import HeadDrafter
from llm_backend.engine.worker_engine import WorkerEngine
from llm_backend.model_files.memory import available_memory_bytes, machine_memory_bytes

if TYPE_CHECKING:  # a worker loads the native library of its own kind of model only
    from llm_backend.engine.llama import LlamaLog, LlamaModel

_log = logging.getLogger("llm_backend.engine.process.model_loading")

MakeWorkerEngine = Callable[[Outbox, Callable[[], bool]], WorkerEngine]
"""Creates the engine of a worker. The arguments are the worker's outbox, and a function that
receives and handles commands in the middle of a step."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A loaded model, verified if it is a language model. `tokenizing_model` is the model itself if
    clients may use its vocabulary."""

    info: ModelInfo
    make_engine: MakeWorkerEngine
    tokenizing_model: Model | None = None


def load_model(config: LoadModel) -> LoadedModel:
    """Loads the model that `config` names. Models of texts and of recordings compute an input here,
    so that a broken file fails at the start and not in a request. Raises `LoadError`,
    `DecodeError`."""
    if config.kind not in SEQUENTIAL_KINDS:
        return _load_llama(config)
    model = _open_sequential(config)
    return LoadedModel(
        info=model.info(),
        make_engine=lambda outbox, receive: SequentialEngine(
            model, config, outbox.publish, receive
        ),
    )


def _open_sequential(config: LoadModel) -> SequentialModel:
    match config.kind:
        case ModelKind.TRANSCRIPTION if config.model_path.suffix == ".onnx":
            from llm_backend.engine.voices import RecognizerModel

            return RecognizerModel(config)
        case ModelKind.TRANSCRIPTION:
            from llm_backend.engine.whisper import WhisperModel

            return WhisperModel(config)
        case ModelKind.SPEECH if config.projector_path is not None:
            from llm_backend.engine.llama import LlamaVoiceModel, capture_log

            return LlamaVoiceModel(config, capture_log())
        case ModelKind.SPEECH:
            from llm_backend.engine.voices import OnnxVoiceModel

            return OnnxVoiceModel(config)
        case ModelKind.DIARIZATION:
            from llm_backend.engine.voices import DiarizationModel

            return DiarizationModel(config)
        case _:
            from llm_backend.engine.diffusion import DiffusionModel

            return DiffusionModel(config)


def _load_llama(config: LoadModel) -> LoadedModel:
    """Loads a language model, and verifies it by a forward pass."""
    from llm_backend.engine.llama import LlamaModel, capture_log

    log = capture_log()
    model = LlamaModel(config, log)
    model.verify()
    drafter = _drafter(model, config, log)
    prefixes = _prefixes(model, config)
    host_cache = _host_prefix_cache(model, config)

    def make_engine(outbox: Outbox, _receive: Callable[[], bool]) -> WorkerEngine:
        if model.kind is ModelKind.CHAT:
            return Generator(model, config, outbox, drafter, prefixes, host_cache)
        return Embedder(model, config, outbox.publish)

    return LoadedModel(info=model.info(), make_engine=make_engine, tokenizing_model=model)


def _drafter(model: "LlamaModel", config: LoadModel, log: "LlamaLog") -> DraftSource | None:
    """Returns the draft model if one is configured, else the model's own draft head if it has
    one."""
    if config.draft_model_path is None:
        head = model.open_draft_head()
        return None if head is None else HeadDrafter(head)
    from llm_backend.engine.llama import is_eagle, load_draft_model, load_eagle_head

    if is_eagle(config.draft_model_path):
        return HeadDrafter(load_eagle_head(model, config, log))
    return Drafter(load_draft_model(model, config, log), model.vocabulary.size)


def _prefixes(model: "LlamaModel", config: LoadModel) -> PrefixFolder | None:
    """Returns the folder of prefix files, if they are enabled and the model supports them. Raises
    `LoadError` if the folder cannot be used."""
    if config.prefixes is None or model.kind is not ModelKind.CHAT:
        return None
    if not model.can_save_states:
        _log.warning("engine.prefix_files_unsupported reason=the model has a sliding window")
        return None
    from llm_backend.engine.llama import STATE_FORMAT

    return open_folder(config, STATE_FORMAT)


def _host_prefix_cache(model: "LlamaModel", config: LoadModel) -> HostPrefixCache | None:
    """Returns the host prefix cache, if it is enabled and the model supports it."""
    is_enabled = config.prefix_ram_limit_bytes != 0 and model.kind is ModelKind.CHAT
    if not (is_enabled and model.can_save_states):
        return None
    limit_bytes = config.prefix_ram_limit_bytes
    if limit_bytes is None:
        limit_bytes = default_limit_bytes(available_memory_bytes())
    _log.info("engine.host_prefix_cache limit_bytes=%s", limit_bytes)
    return HostPrefixCache(
        limit_bytes,
        can_roll_back=model.can_roll_back,
        machine_bytes=machine_memory_bytes(),
        available_bytes=available_memory_bytes,
    )
