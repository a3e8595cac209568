"""Loading of a model's weights: mapped from their file (mmap), or read."""

from pathlib import Path

import llama_cpp as native

from llm_backend.engine.llama.huge_pages import prepare_weights
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.messages import Start


def load_weights(start: Start) -> Handle | None:
    """Load the model of `start.model_path`; None if it cannot be loaded, and the log says why."""
    params = native.llama_model_default_params()
    params.n_gpu_layers = start.gpu_layers
    params.use_extra_bufts = start.use_extra_buffers
    with prepare_weights(_files(start), may_copy=_may_copy(start)) as copies:
        params.load_mode = _load_mode(start, copies=copies)
        return native.llama_model_load_from_file(start.model_path.encode(), params) or None


def _files(start: Start) -> list[Path]:
    """The files that this engine will have in memory besides cells."""
    others = (start.draft_model_path, start.projector_path)
    return [Path(name) for name in (start.model_path, *others) if name is not None]


def _may_copy(start: Start) -> bool:
    """True if weights may be read into memory of their own by default: `mmap` is not configured,
    they are not locked, llama.cpp would not put them into a device's memory, and no other engine
    has the same ones with other adapters."""
    is_decided = start.mmap is not None or start.mlock
    return not (is_decided or start.adapters or native.llama_supports_gpu_offload())


def _load_mode(start: Start, *, copies: bool) -> int:
    maps = start.mmap is not False
    if start.mlock:
        return int(native.LLAMA_LOAD_MODE_MMAP_MLOCK if maps else native.LLAMA_LOAD_MODE_MLOCK)
    if copies or not maps:
        return int(native.LLAMA_LOAD_MODE_NONE)
    return int(native.LLAMA_LOAD_MODE_AUTO if start.mmap is None else native.LLAMA_LOAD_MODE_MMAP)
