"""A context that drafts from hidden states of a model: its own draft head, or an EAGLE-3 draft.

The hidden states come from functions outside llama.cpp's stable API, which are looked up by their
C++ names. If they are missing, models are served without such drafts."""

import ctypes
import logging
from typing import Any, Protocol

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama.cells import Cells
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.native_batch import NativeBatch
from llm_backend.engine.llama.vocabulary import Handle, LlamaVocabulary
from llm_backend.engine.messages import LoadModel
from llm_backend.engine.model import CellsExhausted, DecodeError
from llm_backend.engine.pass_threads import PassThreads
from llm_backend.engine.speculation.hidden_state_buffer import Hidden
from llm_backend.model_files import GgufHeader, draft_head_count, draft_head_problem

_log = logging.getLogger("llm_backend.engine.llama.native_head")

VERIFICATION_TOKENS = 64  # enough to run the matrix kernels that a single token does not use
_ROWS = ctypes.POINTER(ctypes.c_float)
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {  # result and arguments, by C++ name
    "_Z26llama_set_embeddings_nextnP13llama_contextbb": (
        None,
        [ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool],
    ),
    "_Z26llama_get_embeddings_nextnP13llama_context": (_ROWS, [ctypes.c_void_p]),
    "_Z30llama_set_embeddings_layer_inpP13llama_contextjb": (
        None,
        [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_bool],
    ),
    "_Z30llama_get_embeddings_layer_inpP13llama_contextj": (
        _ROWS,
        [ctypes.c_void_p, ctypes.c_uint32],
    ),
}


class HiddenSource(Protocol):
    """Source of the hidden states of the tokens of a pass."""

    def rows(self, count: int) -> Hidden:
        """Hidden states of the first `count` tokens of the last pass: [count, size] float32."""


class HiddenStates:
    """The hidden states that a context computes: of all tokens, or of the outputs only."""

    def __init__(self, context: Handle, size: int, *, of_outputs: bool) -> None:
        self._context = context
        self._size = size
        _function("llama_set_embeddings_nextn")(context, True, of_outputs)

    def rows(self, count: int) -> Hidden:
        """Hidden states of the last pass's first `count` tokens or outputs: a view [count, size]
        float32."""
        if not count:
            return np.empty((0, self._size), dtype=np.float32)
        pointer = _function("llama_get_embeddings_nextn")(self._context)
        return _array(pointer, count, self._size)


class LayerInputs:
    """The inputs of some layers of a context, side by side."""

    def __init__(self, context: Handle, size: int, layers: list[int]) -> None:
        self._context = context
        self._size = size
        self._layers = layers
        for layer in layers:
            _function("llama_set_embeddings_layer_inp")(context, layer, True)

    def rows(self, count: int) -> Hidden:
        """Inputs of the last pass's first `count` tokens: [count, layers * size] float32."""
        get = _function("llama_get_embeddings_layer_inp")
        native.llama_synchronize(self._context)
        parts = [_array(get(self._context, layer), count, self._size) for layer in self._layers]
        return np.concatenate(parts, axis=1)


def _array(pointer: Any, count: int, size: int) -> Hidden:
    """A view [count, size] of native memory. Raises `DecodeError` for a null pointer, the result of
    a pass without hidden states."""
    if not pointer:
        raise DecodeError("The pass has no hidden states.")
    return np.ctypeslib.as_array(pointer, shape=(count, size))


class NativeHead:
    """Model that drafts in `context` from the hidden states of `source`, at `first_position` or
    later. `has_all_outputs`: a pass of its graph outputs all tokens or none."""

    def __init__(
        self,
        context: Handle,
        source: HiddenSource,
        *,
        vocabulary: LlamaVocabulary,
        batch_tokens: int,
        threads: PassThreads,
        log: LlamaLog,
        first_position: int = 0,
        has_all_outputs: bool = False,
    ) -> None:
        self.end_tokens = vocabulary.end_tokens
        self.hidden_size = int(native.llama_model_n_embd_out(native.llama_get_model(context)))
        self.batch_tokens = batch_tokens
        self.first_position = first_position
        self.context_tokens = int(native.llama_n_ctx_seq(context))
        self._context = context
        self._source = source
        self._has_all_outputs = has_all_outputs
        self._log = log
        self._vocabulary_size = vocabulary.size
        self._states = HiddenStates(context, self.hidden_size, of_outputs=True)
        memory = native.llama_get_memory(context)
        self._cells = Cells(context, memory, copies_only_used_cells=False)
        self._threads = threads
        self._batch = NativeBatch(batch_tokens)
        self._hidden = np.zeros((batch_tokens, self.hidden_size), dtype=np.float32)
        self._batch.add_embeddings(self._hidden)

    def verify(self) -> None:
        """Computes a trial pass, which crashes if the native code does not suit the file."""
        length = min(VERIFICATION_TOKENS, self.context_tokens, self.batch_tokens)
        chunk = BatchChunk(slot=0, position=0, tokens=[0] * length, outputs=[length - 1])
        self.forward([chunk], np.zeros((length, self.hidden_size), dtype=np.float32))
        self.truncate(0, 0)

    def hidden_states(self, count: int) -> Hidden:
        """Hidden states of the `count` tokens of the model's last pass, perhaps a view."""
        return self._source.rows(count)

    def forward(
        self, chunks: list[BatchChunk], hidden: Hidden
    ) -> tuple[NDArray[np.float32], Hidden]:
        """Computes `chunks`, with the hidden state before each of their tokens. Returns logits and
        hidden states of the outputs, perhaps views. Raises `CellsExhausted` or `DecodeError`."""
        outputs = self._batch.fill(chunks)
        wanted = np.flatnonzero(self._batch.arrays.outputs[: self._batch.arrays.length])
        if outputs and self._has_all_outputs:
            outputs = self._batch.arrays.length
            self._batch.arrays.outputs[:outputs] = 1
        self._hidden[: len(hidden)] = hidden
        batch = self._batch.native
        status = self._threads.compute(
            batch.n_tokens, lambda: int(native.llama_decode(self._context, batch))
        )
        if status == 1:
            raise CellsExhausted
        if status:
            raise DecodeError(f"the draft head failed: status {status}; {self._log.pop_reason()}")
        if not outputs:
            native.llama_synchronize(self._context)
            return np.empty((0, self._vocabulary_size), dtype=np.float32), self._states.rows(0)
        pointer = native.llama_get_logits(self._context)
        logits = np.ctypeslib.as_array(pointer, shape=(outputs, self._vocabulary_size))
        states = self._states.rows(outputs)
        return (logits[wanted], states[wanted]) if self._has_all_outputs else (logits, states)

    def copy(self, source: int, target: int) -> None:
        """Replaces the cells of slot `target` by a copy of the cells of `source`."""
        self._cells.copy(source, target)

    def truncate(self, slot: int, position: int) -> bool:
        """Keeps the cells of a slot before `position`. False if they cannot be truncated."""
        return self._cells.truncate(slot, position)


def hidden_states_are_available() -> bool:
    """True if the native library has the functions for hidden states."""
    return all(hasattr(native.llama_cpp._lib, name) for name in _FUNCTIONS)


def has_usable_head(header: GgufHeader, config: LoadModel) -> bool:
    """True if tokens are drafted with the model's own head; logs why a head is not used."""
    if (
        not draft_head_count(header)
        or not config.draft_tokens
        or config.draft_model_path is not None
    ):
        return False
    reason = draft_head_problem(header)
    if reason is None and not config.draft_heads:
        reason = "a worker that used it has crashed"
    if reason is None and not hidden_states_are_available():
        reason = "this build of llama.cpp does not give hidden states"
    if reason is not None:
        _log.warning("engine.draft_head_unused reason=%s", reason)
    return reason is None


# Any: functions of the bindings are untyped
def _function(name: str) -> Any:
    symbol = next(symbol for symbol in _FUNCTIONS if name in symbol)
    function = getattr(native.llama_cpp._lib, symbol)
    function.restype, function.argtypes = _FUNCTIONS[symbol]
    return function
