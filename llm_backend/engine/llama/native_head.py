"""The draft head of a loaded model, in a context of its own that shares the model's weights.

The hidden states come from functions that the binding has, but llama.cpp does not call stable: they
are looked up by name, and without them nothing is drafted."""

import importlib

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama.cells import Cells
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.native_batch import NativeBatch
from llm_backend.engine.llama.threads import PassThreads
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.model import CellsExhausted, DecodeError
from llm_backend.engine.speculation.head_drafter import Hidden

_VERIFICATION_TOKENS = 64  # enough to run the matrix kernels that a single token does not use


class HiddenStates:
    """The hidden states that a context computes: of all tokens, or of the outputs only."""

    def __init__(self, context: Handle, size: int, *, of_outputs: bool) -> None:
        self._context = context
        self._size = size
        # without their names for other compilers, the functions are missing
        self._functions = importlib.import_module("llama_cpp.llama_cpp_ext")
        self._functions.llama_set_embeddings_nextn(context, True, of_outputs)

    def rows(self, count: int) -> Hidden:
        """Of the first `count` tokens or outputs of the last pass: a view [count, size] float32."""
        if not count:
            return np.empty((0, self._size), dtype=np.float32)
        pointer = self._functions.llama_get_embeddings_nextn(self._context)
        return np.ctypeslib.as_array(pointer, shape=(count, self._size))


class NativeHead:
    """The head of `model`, which computes in `model_context`. `params` are the model's own."""

    def __init__(
        self,
        model: Handle,
        model_context: Handle,
        params: native.llama_context_params,
        threads: int,
        log: LlamaLog,
        *,
        end_tokens: frozenset[int],
        vocabulary_size: int,
        is_learning: bool,
    ) -> None:
        self.end_tokens = end_tokens
        self.hidden_size = int(native.llama_model_n_embd_out(model))
        self.batch_tokens = int(params.n_ubatch)
        self._log = log
        self._vocabulary_size = vocabulary_size
        params.ctx_type = native.LLAMA_CONTEXT_TYPE_MTP
        params.n_outputs_max = params.n_outputs_max_per_seq = params.n_seq_max
        self._context = native.llama_init_from_model(model, params)
        if not self._context:
            raise DecodeError(f"there is no context for the draft head: {log.pop_reason()}")
        self.context_tokens = int(native.llama_n_ctx_seq(self._context))
        self._states = HiddenStates(self._context, self.hidden_size, of_outputs=True)
        self._model_states = HiddenStates(model_context, self.hidden_size, of_outputs=False)
        memory = native.llama_get_memory(self._context)
        self._cells = Cells(self._context, memory, copies_only_used_cells=False)
        self._threads = PassThreads(self._context, threads, is_learning=is_learning)
        self._batch = NativeBatch(self.batch_tokens)
        self._hidden = np.zeros((self.batch_tokens, self.hidden_size), dtype=np.float32)
        self._batch.add_embeddings(self._hidden)

    def verify(self) -> None:
        """Compute a pass, as the first one crashes if the native code does not suit the file."""
        length = min(_VERIFICATION_TOKENS, self.context_tokens, self.batch_tokens)
        chunk = BatchChunk(slot=0, position=0, tokens=[0] * length, outputs=[length - 1])
        self.forward([chunk], np.zeros((length, self.hidden_size), dtype=np.float32))
        self.truncate(0, 0)

    def hidden_states(self, count: int) -> Hidden:
        """Hidden states of the `count` tokens of the model's last pass, a view."""
        return self._model_states.rows(count)

    def forward(
        self, chunks: list[BatchChunk], hidden: Hidden
    ) -> tuple[NDArray[np.float32], Hidden]:
        """Compute `chunks`, with the hidden state before each of their tokens. Returns logits and
        hidden states of the outputs, both views. Raises `CellsExhausted` or `DecodeError`."""
        outputs = self._batch.fill(chunks)
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
        logits = native.llama_get_logits(self._context)
        shape = (outputs, self._vocabulary_size)
        return np.ctypeslib.as_array(logits, shape=shape), self._states.rows(outputs)

    def copy(self, source: int, target: int) -> None:
        """Replace the cells of slot `target` by a copy of the cells of `source`."""
        self._cells.copy(source, target)

    def truncate(self, slot: int, position: int) -> bool:
        """Keep the cells of a slot before `position`. False if they cannot be truncated."""
        return self._cells.truncate(slot, position)


def hidden_states_are_available() -> bool:
    """True if the binding finds the functions for hidden states in its library."""
    try:
        importlib.import_module("llama_cpp.llama_cpp_ext")
    except (ImportError, AttributeError):
        return False
    return True
