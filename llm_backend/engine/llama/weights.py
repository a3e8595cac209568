"""Loading of a model's weights: mapped from their file (mmap) or read, to host or device memory."""

import ctypes
from pathlib import Path
from typing import ClassVar

import llama_cpp as native

from llm_backend.engine.llama import devices
from llm_backend.engine.llama.huge_pages import prepare_weights
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.messages import LoadModel

_SPLIT_MODES = {
    "none": native.LLAMA_SPLIT_MODE_NONE,
    "layer": native.LLAMA_SPLIT_MODE_LAYER,
    "row": native.LLAMA_SPLIT_MODE_ROW,
}
_GetBufferType = ctypes.CFUNCTYPE(ctypes.c_void_p)


class _Override(ctypes.Structure):
    """`llama_model_tensor_buft_override`, which the bindings lack."""

    _fields_: ClassVar = [("pattern", ctypes.c_char_p), ("kind", ctypes.c_void_p)]


class DevicePlacement:
    """Parameters that place layers on devices. Must outlive the model, which refers to them."""

    def __init__(self, config: LoadModel) -> None:
        self._config = config
        padded = [*config.tensor_split, *([0.0] * native.LLAMA_MAX_DEVICES)]
        shares = padded[: native.LLAMA_MAX_DEVICES]
        self.split = (ctypes.c_float * native.LLAMA_MAX_DEVICES)(*shares)
        kind = _GetBufferType(("ggml_backend_cpu_buffer_type", native.llama_cpp._lib))()
        overrides = [_Override(_experts_of(layer), kind) for layer in range(config.host_experts)]
        self.overrides = (_Override * (len(overrides) + 1))(*overrides)  # the last one is empty

    def apply(self, params: native.llama_model_params) -> None:
        """Writes the placement into the parameters of a model."""
        config = self._config
        params.n_gpu_layers = -1 if config.gpu_layers is None else config.gpu_layers
        params.main_gpu = config.main_gpu
        params.split_mode = _SPLIT_MODES[config.split_mode]
        if config.tensor_split:
            params.tensor_split = self.split
        if config.host_experts:
            params.tensor_buft_overrides = ctypes.addressof(self.overrides)


def _experts_of(layer: int) -> bytes:
    """Returns a pattern of the names of the tensors that hold a layer's experts."""
    return rf"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps".encode()


def load_weights(
    config: LoadModel, placement: DevicePlacement, *, loads_draft_head: bool
) -> Handle | None:
    """Loads the model at `config.model_path`. Returns None if it cannot be loaded; llama.cpp then
    has logged the reason."""
    params = native.llama_model_default_params()
    placement.apply(params)
    params.load_mtp = loads_draft_head
    params.use_extra_bufts = config.use_extra_buffers
    with prepare_weights(_weight_files(config), may_copy=_may_copy(config)) as copies:
        params.load_mode = _load_mode(config, copies=copies)
        return native.llama_model_load_from_file(bytes(config.model_path), params) or None


def _weight_files(config: LoadModel) -> list[Path]:
    """Returns the files whose contents this engine will have in memory."""
    others = (config.draft_model_path, config.projector_path)
    return [path for path in (config.model_path, *others) if path is not None]


def _may_copy(config: LoadModel) -> bool:
    """True if weights may be read into memory of their own by default. The conditions: `mmap` is
    not configured, the weights are not locked, llama.cpp would not put them into a device's memory,
    and no other engine has the same weights with other adapters."""
    is_decided = config.mmap is not None or config.mlock
    return not (is_decided or config.adapters or devices.supports_gpus())


def _load_mode(config: LoadModel, *, copies: bool) -> int:
    maps = config.mmap is not False
    if config.mlock:
        return int(native.LLAMA_LOAD_MODE_MMAP_MLOCK if maps else native.LLAMA_LOAD_MODE_MLOCK)
    if copies or not maps:
        return int(native.LLAMA_LOAD_MODE_NONE)
    return int(native.LLAMA_LOAD_MODE_AUTO if config.mmap is None else native.LLAMA_LOAD_MODE_MMAP)
