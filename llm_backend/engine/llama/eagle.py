"""EAGLE-3 drafts: a layer in a file of its own, which drafts from the inputs of the model's layers.

For each token, an encoder fuses the inputs of three layers to one hidden state. The first token of
a sequence has none."""

import ctypes

import llama_cpp as native
import numpy as np

from llm_backend.engine.llama.model import LlamaModel
from llm_backend.engine.llama.native_batch import NativeBatch
from llm_backend.engine.llama.native_head import (
    HiddenStates,
    LayerInputs,
    NativeHead,
    hidden_states_are_available,
)
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.speculation.hidden_state_buffer import Hidden
from llm_backend.model_files import GgufHeader

# Architectures whose graphs output the inputs of their layers. For any other, the pinned llama.cpp
# ends the process.
_ARCHITECTURES = frozenset({"gpt-oss", "llama", "qwen3", "qwen3moe"})


class FusedInputs:
    """The inputs of `layers` of `model`, fused by the encoder of `draft`."""

    def __init__(self, model: LlamaModel, draft: LlamaModel, layers: list[int]) -> None:
        self._context = draft.context
        self._batch_tokens = draft.batch_tokens
        size = native.llama_model_n_embd(native.llama_get_model(model.context))
        self._inputs = LayerInputs(model.context, size, layers)
        self._size = int(native.llama_model_n_embd_out(native.llama_get_model(draft.context)))
        self._states = HiddenStates(draft.context, self._size, of_outputs=True)
        self._batch = NativeBatch(draft.batch_tokens)

    def rows(self, count: int) -> Hidden:
        """Returns the fused inputs of the first `count` tokens of the model's last pass:
        [count, size] float32."""
        inputs = self._inputs.rows(count)
        parts = range(0, count, self._batch_tokens)
        return np.concatenate([self._encode(inputs[at : at + self._batch_tokens]) for at in parts])

    def _encode(self, inputs: Hidden) -> Hidden:
        count, inputs = len(inputs), np.ascontiguousarray(inputs)
        batch, kinds = native.llama_batch(), dict(native.llama_batch._fields_)
        # The encoder ignores positions, but those of a batch must follow those of the cells.
        memory = native.llama_get_memory(self._context)
        first = int(native.llama_memory_seq_pos_max(memory, 0)) + 1
        arrays = self._batch.arrays
        arrays.positions[:count] = np.arange(first, first + count)
        arrays.slots[:count] = 0
        arrays.outputs[:count] = 1
        for name in ("pos", "n_seq_id", "seq_id", "logits"):
            setattr(batch, name, getattr(self._batch.native, name))
        batch.embd = ctypes.cast(inputs.ctypes.data, kinds["embd"])
        batch.n_tokens = count
        status = int(native.llama_encode(self._context, batch))
        if status:
            raise DecodeError(f"the encoder of the draft failed: status {status}")
        native.llama_synchronize(self._context)
        return self._states.rows(count).copy()


def open_eagle_head(
    model: LlamaModel, model_header: GgufHeader, draft: LlamaModel, header: GgufHeader
) -> NativeHead:
    """Returns the verified head of an EAGLE-3 `draft`. Raises `LoadError` if it does not suit."""
    if model_header.architecture not in _ARCHITECTURES:
        raise LoadError(
            f"{header.path} cannot draft for {model_header.path}: llama.cpp does not give the "
            f"inputs of the layers of {model_header.architecture}"
        )
    if not hidden_states_are_available():
        raise LoadError(
            f"this build of llama.cpp does not give the states from which {header.path} drafts"
        )
    layers = header.of_architecture("target_layers")
    count = native.llama_model_n_layer(native.llama_get_model(model.context))
    if not isinstance(layers, list) or not all(0 <= layer < count for layer in layers):
        raise LoadError(
            f"{header.path} drafts from the layers {layers}, but the model has {count} layers"
        )
    size = native.llama_model_n_embd(native.llama_get_model(model.context))
    if header.of_architecture("target_hidden_size") != size:
        raise LoadError(f"{header.path} cannot draft for a model of another width than {size}")
    head = NativeHead(
        draft.context,
        FusedInputs(model, draft, layers),
        vocabulary=draft.vocabulary,
        batch_tokens=draft.batch_tokens,
        threads=draft.threads,
        log=model.log,
        first_position=1,
        has_all_outputs=True,
    )
    head.verify()
    return head
