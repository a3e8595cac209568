"""A loaded llama.cpp model and its context: forward passes, KV cells, embeddings."""

import ctypes
import logging

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama.adapters import apply_adapters
from llm_backend.engine.llama.cell_memory import CellMemory
from llm_backend.engine.llama.cells import Cells
from llm_backend.engine.llama.devices import computes_on_gpu, describe_devices
from llm_backend.engine.llama.header import Header, check_file, native_text
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.native_batch import NativeBatch
from llm_backend.engine.llama.native_head import (
    VERIFICATION_TOKENS,
    HiddenStates,
    NativeHead,
    has_usable_head,
)
from llm_backend.engine.llama.prefill_kernels import Instructions, use_prefill_kernels
from llm_backend.engine.llama.projector import NativeProjector
from llm_backend.engine.llama.vocabulary import Handle, LlamaVocabulary
from llm_backend.engine.llama.weights import DevicePlacement, load_weights
from llm_backend.engine.media_runs import Run
from llm_backend.engine.messages import LoadModel, MissingKernels, ModelInfo, ModelKind
from llm_backend.engine.model import CellsExhausted, DecodeError, LoadError, OutOfMemory
from llm_backend.engine.pass_threads import PassThreads, first_thread_count
from llm_backend.engine.sequence import ScheduledTokens
from llm_backend.model_files import GgufHeader, model_costs, snapshot_count

_log = logging.getLogger("llm_backend.engine.llama.model")

_FLASH_ATTENTION = {
    None: native.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: native.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: native.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_INPUTS_PER_PASS = 32  # minimum number of inputs in one pass of an embedding model
_BOS_KEY = "tokenizer.ggml.bos_token_id"  # without it the native code uses a default
_FAILED_ALLOCATION = "alloc"  # is in all messages of llama.cpp about failed allocations


class LlamaModel:
    """A loaded model and its one context, as configured by `LoadModel`.

    A slot is a sequence id. `forward` computes logits, `embed` embeddings. `target` is the model
    with which an EAGLE-3 draft shares token embeddings.
    """

    def __init__(
        self, config: LoadModel, log: LlamaLog, *, target: "LlamaModel | None" = None
    ) -> None:
        self._config = config
        self.log = log
        self._target = target
        header = check_file(config.model_path)
        self.has_draft_head = has_usable_head(header, config)
        self._snapshots = snapshot_count(header, config.draft_tokens) if self.has_draft_head else 0
        self._gpu_bytes = _gpu_bytes(header, config)
        native.llama_backend_init()
        kernels = use_prefill_kernels(
            is_wanted=config.prefill_kernels and config.flash_attention is not False
        )
        self._missing_kernels = kernels if isinstance(kernels, MissingKernels) else None
        self._instructions = Instructions.NONE if isinstance(kernels, MissingKernels) else kernels
        self._placement = DevicePlacement(config)
        self._model = self._load()
        self.vocabulary = LlamaVocabulary(native.llama_model_get_vocab(self._model))
        self._header = Header(self._model, config.model_path, config.kind)
        self.kind = self._header.kind
        self.rerank_template = self._header.rerank_template()
        self.context_tokens = self._context_size()
        self.slots = config.slots
        if self.kind is not ModelKind.CHAT:
            self.slots = max(config.slots, _INPUTS_PER_PASS)
        self.batch_tokens = max(config.batch_tokens, self.slots)
        if self.kind is not ModelKind.CHAT:
            self.batch_tokens = max(config.batch_tokens, self.context_tokens)
        self._rows_limit = self.slots + config.logit_rows
        if target is not None:
            self._rows_limit = self.batch_tokens  # each token of an EAGLE-3 draft has an output
        self._view: NDArray[np.float32] | None = None
        self._view_address = 0
        self._cell_memory = CellMemory()
        self._first_threads = first_thread_count(config, native.llama_model_size(self._model))
        self.context = self._open_context()
        self.threads = self._new_threads(self.context)
        apply_adapters(self.context, self._model, config, log)
        self._memory = native.llama_get_memory(self.context)
        self._cells = Cells(
            self.context,
            self._memory,
            copies_only_used_cells=self.copies_only_used_cells,
            has_snapshots=self.rollback_tokens > 0,
            # a recurrent state continues from its end only, before which the window is whole
            window=0 if self._has_state else native.llama_model_n_swa(self._model),
        )
        self._batch = NativeBatch(self.batch_tokens)
        self.projector = self._projector()
        self.can_roll_back = True

    def verify(self) -> None:
        """Verifies the model by a pass, which crashes if the build does not suit the processor, and
        tests if the state can be truncated."""
        token = next(iter(self.vocabulary.end_tokens), 0)
        length = min(VERIFICATION_TOKENS, self.context_tokens - 1, self.batch_tokens)
        if self.kind is not ModelKind.CHAT:
            self._pool([[token] * length], 1)
            return
        first, last = [token] * length, [token]
        self._decode([BatchChunk(slot=0, position=0, tokens=first, outputs=[length - 1])])
        self._decode([BatchChunk(slot=0, position=length, tokens=last, outputs=[0])])
        # with snapshots this truncation would succeed, and longer ones would fail
        self.can_roll_back = not self.rollback_tokens and self.truncate(0, length)
        self.truncate(0, 0)

    @property
    def rollback_tokens(self) -> int:
        """Number of tokens of a slot's last pass that can be truncated, by snapshots of its
        recurrent state."""
        return int(native.llama_n_rs_seq(self.context))

    def forward(self, scheduled: list[ScheduledTokens]) -> NDArray[np.float32]:
        """Computes `scheduled`, in the order of slots. Returns logits: [output positions, vocab]
        float32, a view that the next pass overwrites."""
        return self._decode([_chunk(item) for item in scheduled])

    def copy(self, source: int, target: int) -> None:
        """Replaces the cells of slot `target` by a copy of the cells of `source`."""
        self._cells.copy(source, target)

    def encode_media(self, run: Run, *, slot: int, position: int, first: int, count: int) -> None:
        """Computes `count` embeddings of a media run, from its `first` on, into the cells of a
        slot; the run begins at `position`. Raises `MediaError`, `CellsExhausted` or
        `DecodeError`."""
        assert self.projector is not None, "a media run exists only with a projector"
        embeddings = self.projector.embeddings(run)
        batch = self._batch.from_embeddings(embeddings, slot, position, first, count)
        if embeddings.is_non_causal:
            native.llama_set_causal_attn(self.context, False)
        try:
            self._compute(batch)
            native.llama_synchronize(self.context)
        finally:
            if embeddings.is_non_causal:
                native.llama_set_causal_attn(self.context, True)

    def truncate(self, slot: int, position: int) -> bool:
        """Removes the cells of a slot from `position` on. Returns False, and changes nothing, if
        this state cannot be truncated. Position 0, which empties the slot, never fails."""
        return self._cells.truncate(slot, position)

    def end(self, slot: int) -> int:
        """Returns the position after the last one in a slot."""
        return self._cells.end(slot)

    def state_bytes(self, slot: int) -> int:
        """Returns the size of the state of a slot's cells, which `state` allocates."""
        return self._cells.state_bytes(slot)

    def state(self, slot: int) -> NDArray[np.uint8]:
        """Returns the state of a slot's cells: [bytes] uint8."""
        return self._cells.state(slot)

    def restore(self, slot: int, state: NDArray[np.uint8], end: int) -> bool:
        """Replaces the cells of a slot by a saved `state` that ends at position `end`. Returns
        False, and leaves the slot empty, if the bytes are invalid or cells are exhausted."""
        return self._cells.restore(slot, state, end)

    @property
    def can_save_states(self) -> bool:
        """True if `state` saves all cells of a slot: with sliding window attention it does not."""
        return self.kind is ModelKind.CHAT and native.llama_model_n_swa(self._model) == 0

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """Returns L2-normalised embeddings: [inputs, dimensions] float32. All inputs together must
        fit one pass."""
        vectors = self._pool(inputs, native.llama_model_n_embd_out(self._model))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1)
        return vectors

    def rank(self, inputs: list[list[int]]) -> NDArray[np.float64]:
        """Returns the relevance, from 0 to 1, of each input, which is a query with a document:
        [inputs] float64. It is the first probability of a head with two labels, or the logistic
        function of the output of a head with one. All inputs together must fit one pass."""
        scores = self._pool(inputs, 1)[:, 0].astype(np.float64)
        if self._header.gives_probabilities:
            return scores
        return np.exp(-np.logaddexp(0, -scores))

    def _pool(self, inputs: list[list[int]], size: int) -> NDArray[np.float32]:
        """Returns the first `size` numbers of each input's pooled output: [inputs, size]
        float32."""
        self._batch.fill(
            [
                BatchChunk(slot=slot, position=0, tokens=tokens, outputs=list(range(len(tokens))))
                for slot, tokens in enumerate(inputs)
            ]
        )
        if self._memory:
            native.llama_memory_clear(self._memory, False)
        encodes = not native.llama_model_has_decoder(self._model) or not self._memory
        compute = native.llama_encode if encodes else native.llama_decode
        batch = self._batch.native
        status = self.threads.compute(batch.n_tokens, lambda: compute(self.context, batch))
        if status:
            raise DecodeError(
                f"the model could not read its inputs: status {status}; {self.log.pop_reason()}"
            )
        results = np.empty((len(inputs), size), dtype=np.float32)
        for slot in range(len(inputs)):
            pointer = native.llama_get_embeddings_seq(self.context, slot)
            results[slot] = np.ctypeslib.as_array(pointer, shape=(size,))
        return results

    def info(self) -> ModelInfo:
        """Returns information about the model."""
        parameters = native.llama_model_n_params(self._model)
        description = native_text(native.llama_model_desc, self._model)
        return ModelInfo(
            architecture=self._header.architecture,
            name=self._header.text("general.name"),
            # llama.cpp writes so where it knows no model of this size
            description=description.replace("?B", f"{parameters / 1e6:,.0f}M"),
            parameters=parameters,
            size_bytes=native.llama_model_size(self._model),
            vocabulary_size=self.vocabulary.size,
            embedding_size=native.llama_model_n_embd_out(self._model),
            trained_context_tokens=native.llama_model_n_ctx_train(self._model),
            context_tokens=self.context_tokens,
            slots=self.slots,
            chat_template=self._header.chat_template(),
            tool_template=self._header.chat_template(b"tool_use"),
            bos_token=self.vocabulary.bos_token if self._header.text(_BOS_KEY) else "",
            eos_token=self.vocabulary.eos_token,
            control_tokens=self.vocabulary.control_names,
            kind=self.kind,
            can_infill=self.vocabulary.infill is not None,
            media=sorted(self.projector.media) if self.projector else [],
            extra_buffers=self._config.use_extra_buffers,
            backend=self._describe_backend(),
            missing_kernels=self._missing_kernels,
            gpu_bytes=self._gpu_bytes,
            plan=self._config.plan,
        )

    def _describe_backend(self) -> str:
        devices = describe_devices(on_gpu=computes_on_gpu(self._config))
        title = self._instructions.title
        prefill = f", prefill with {title}" if title else ""
        return f"{devices}{prefill}{', drafts with its own head' if self.has_draft_head else ''}"

    def _load(self) -> Handle:
        model = load_weights(self._config, self._placement, loads_draft_head=self.has_draft_head)
        if model:
            return model
        reason = self.log.pop_reason()
        kind = OutOfMemory if _FAILED_ALLOCATION in reason else LoadError
        raise kind(f"{self._config.model_path} cannot be loaded: {reason}")

    def open_draft_head(self) -> NativeHead | None:
        """Returns the model's draft head, verified by a pass; None if the file has none, or if it
        cannot be used."""
        if not self.has_draft_head or self.kind is not ModelKind.CHAT:
            return None
        can_truncate = self.can_roll_back or self.rollback_tokens
        reason = None if can_truncate else "the model's state cannot be truncated"
        if reason is None:
            try:
                return self._new_head()
            except DecodeError as error:
                reason = str(error)
        _log.warning("engine.draft_head_unused reason=%s", reason)
        self.has_draft_head = False
        return None

    def _new_head(self) -> NativeHead:
        params = self._context_params()
        params.ctx_type = native.LLAMA_CONTEXT_TYPE_MTP
        params.n_outputs_max = params.n_outputs_max_per_seq = self.slots
        with self._cell_memory.allocate_lazily(is_wanted=not self._config.mlock):
            context = native.llama_init_from_model(self._model, params)
        if not context:
            raise DecodeError(f"there is no context for it: {self.log.pop_reason()}")
        size = native.llama_model_n_embd_out(self._model)
        head = NativeHead(
            context,
            HiddenStates(self.context, size, of_outputs=False),
            vocabulary=self.vocabulary,
            batch_tokens=self.batch_tokens,
            threads=self._new_threads(context),
            log=self.log,
        )
        head.verify()
        return head

    def _new_threads(self, context: Handle) -> PassThreads:
        is_learning = self._config.threads is None and not computes_on_gpu(self._config)

        def set_count(count: int) -> None:
            native.llama_set_n_threads(context, count, count)

        return PassThreads(self._first_threads, set_count, is_learning=is_learning)

    def _open_context(self) -> Handle:
        params = self._context_params()
        params.n_rs_seq = self._snapshots
        with self._cell_memory.allocate_lazily(is_wanted=not self._config.mlock):
            context = native.llama_init_from_model(self._model, params)
        if not context:
            raise OutOfMemory(
                f"there is no memory for {self.slots} slots of {self.context_tokens} tokens: "
                f"{self.log.pop_reason()}"
            )
        return context

    def _context_params(self) -> native.llama_context_params:
        config, params = self._config, native.llama_context_default_params()
        params.n_seq_max = self.slots
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_threads = params.n_threads_batch = self._first_threads
        params.flash_attn_type = _FLASH_ATTENTION[config.flash_attention]
        params.no_perf = True
        if self.kind is not ModelKind.CHAT:
            params.embeddings, params.kv_unified = True, True
            params.n_ctx = self.batch_tokens
            params.pooling_type = self._header.pooling()
        else:
            params.kv_unified = config.kv_unified
            params.type_k = params.type_v = getattr(
                native, f"GGML_TYPE_{config.cache_type.upper()}"
            )
            params.n_ctx = config.cells or self.slots * self.context_tokens
            params.n_outputs_max = self._rows_limit
            params.n_outputs_max_per_seq = params.n_outputs_max
        if self._target is not None:
            params.ctx_other = self._target.context
        return params

    @property
    def copies_only_used_cells(self) -> bool:
        """True if `copy` copies only the used cells of a slot when they are few, to touch less
        memory. That needs cells in CPU memory, separate for each slot, and no recurrent state."""
        is_whole = not self._has_state and native.llama_model_n_swa(self._model) == 0
        is_shared = self._config.kv_unified or computes_on_gpu(self._config)
        return self._cell_memory.is_lazy and is_whole and not is_shared

    @property
    def _has_state(self) -> bool:
        """True if the model has a recurrent state."""
        is_recurrent = native.llama_model_is_recurrent(self._model)
        return bool(is_recurrent or native.llama_model_is_hybrid(self._model))

    def _projector(self) -> NativeProjector | None:
        if self._config.projector_path is None:
            return None
        if self.kind is not ModelKind.CHAT:
            raise LoadError(
                f"{self._config.model_path} generates nothing, so it has no use for the projector "
                f"{self._config.projector_path}"
            )
        return NativeProjector(self._config, self._model, self.log)

    def _context_size(self) -> int:
        config, trained = self._config, int(native.llama_model_n_ctx_train(self._model))
        if config.context_tokens is None:
            return min(trained, config.default_context_tokens)
        if self.kind is not ModelKind.CHAT:  # its table of positions may end at the trained context
            return min(trained, config.context_tokens)
        return config.context_tokens

    def _decode(self, chunks: list[BatchChunk]) -> NDArray[np.float32]:
        outputs = self._batch.fill(chunks)
        self._compute(self._batch.native)
        if not outputs:
            native.llama_synchronize(self.context)
            return np.empty((0, self.vocabulary.size), dtype=np.float32)
        return self._logits()[:outputs]

    def _logits(self) -> NDArray[np.float32]:
        """Returns the logits of the last pass: [rows limit, vocab] float32. The view is cached
        until their address changes, because creating it takes longer than planning a pass."""
        pointer = native.llama_get_logits(self.context)
        address = ctypes.addressof(pointer.contents)
        if self._view is None or self._view_address != address:
            shape = (self._rows_limit, self.vocabulary.size)
            self._view, self._view_address = np.ctypeslib.as_array(pointer, shape=shape), address
        return self._view

    def _compute(self, batch: Handle) -> None:
        status = self.threads.compute(
            batch.n_tokens, lambda: int(native.llama_decode(self.context, batch))
        )
        if status == 1:
            raise CellsExhausted
        if status:
            raise DecodeError(f"the forward pass failed: status {status}; {self.log.pop_reason()}")


def _gpu_bytes(header: GgufHeader, config: LoadModel) -> int:
    """Returns the size of the weights that llama.cpp puts on GPUs."""
    if not computes_on_gpu(config):
        return 0
    return model_costs(header).device_weights(config.gpu_layers, config.host_experts)


def _chunk(scheduled: ScheduledTokens) -> BatchChunk:
    sequence, start = scheduled.sequence, scheduled.sequence.computed
    return BatchChunk(
        slot=sequence.assigned_slot,
        position=sequence.position(start),
        tokens=scheduled.tokens,
        outputs=[position - start for position in scheduled.output_positions],
    )
