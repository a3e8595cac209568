"""LoRA adapters of a model, applied to all passes of a context."""

import ctypes
from pathlib import Path

import llama_cpp as native

from llm_backend.engine.llama.header import check_file
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.messages import LoadModel
from llm_backend.engine.model import LoadError


def apply_adapters(context: Handle, model: Handle, config: LoadModel, log: LlamaLog) -> None:
    """Applies the adapters to all later passes. Raises `LoadError` for one that does not fit the
    model."""
    adapters = config.adapters
    if not adapters:
        return
    loaded = (native.llama_adapter_lora_p_ctypes * len(adapters))()
    for index, adapter in enumerate(adapters):
        check_file(Path(adapter.path))
        loaded[index] = native.llama_adapter_lora_init(model, adapter.path.encode())
        if not loaded[index]:
            raise LoadError(
                f"the adapter {adapter.path} cannot be applied to {config.model_path}: "
                f"{log.pop_reason()}"
            )
    scales = (ctypes.c_float * len(adapters))(*(one.scale for one in adapters))
    native.llama_set_adapters_lora(context, loaded, len(adapters), scales)
