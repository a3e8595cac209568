"""Loading of a model's weights: mapped from their file (mmap), or read; on devices or not."""

import ctypes
from pathlib import Path
from typing import ClassVar

import llama_cpp as native

from llm_backend.engine.llama.huge_pages import prepare_weights
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.messages import Start

_SPLIT_MODES = {
    "none": native.LLAMA_SPLIT_MODE_NONE,
    "layer": native.LLAMA_SPLIT_MODE_LAYER,
    "row": native.LLAMA_SPLIT_MODE_ROW,
}
_GetType = ctypes.CFUNCTYPE(ctypes.c_void_p)


class _Override(ctypes.Structure):
    """`llama_model_tensor_buft_override`, which the bindings lack."""

    _fields_: ClassVar = [("pattern", ctypes.c_char_p), ("kind", ctypes.c_void_p)]


class DevicePlacement:
    """Parameters that place layers on devices. Must outlive the model, which refers to them."""

    def __init__(self, start: Start) -> None:
        self._start = start
        padded = [*start.tensor_split, *([0.0] * native.LLAMA_MAX_DEVICES)]
        shares = padded[: native.LLAMA_MAX_DEVICES]
        self.split = (ctypes.c_float * native.LLAMA_MAX_DEVICES)(*shares)
        kind = _GetType(("ggml_backend_cpu_buffer_type", native.llama_cpp._lib))()
        overrides = [_Override(_experts_of(layer), kind) for layer in range(start.host_experts)]
        self.overrides = (_Override * (len(overrides) + 1))(*overrides)  # the last one is empty

    def apply(self, params: native.llama_model_params) -> None:
        """Write the placement into the parameters of a model."""
        start = self._start
        params.n_gpu_layers = -1 if start.gpu_layers is None else start.gpu_layers
        params.main_gpu = start.main_gpu
        params.split_mode = _SPLIT_MODES[start.split_mode]
        if start.tensor_split:
            params.tensor_split = self.split
        if start.host_experts:
            params.tensor_buft_overrides = ctypes.addressof(self.overrides)


def _experts_of(layer: int) -> bytes:
    """Pattern of the tensors with the experts of a layer."""
    return rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps".encode()


def load_weights(
    start: Start, placement: DevicePlacement, *, loads_draft_head: bool
) -> Handle | None:
    """Load the model of `start.model_path`; None if it cannot be loaded, with the reason in the
    log."""
    params = native.llama_model_default_params()
    placement.apply(params)
    params.load_mtp = loads_draft_head
    params.use_extra_bufts = start.use_extra_buffers
    with prepare_weights(_files(start), may_copy=_may_copy(start)) as copies:
        params.load_mode = _load_mode(start, copies=copies)
        return native.llama_model_load_from_file(bytes(start.model_path), params) or None


def _files(start: Start) -> list[Path]:
    """The files that this engine will have in memory besides cells."""
    others = (start.draft_model_path, start.projector_path)
    return [path for path in (start.model_path, *others) if path is not None]


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
