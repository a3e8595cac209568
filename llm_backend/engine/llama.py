"""llama.cpp: the only module that imports llama_cpp. One thread alone may use what is in here, as a
second OpenMP team would halve the speed."""

import ctypes
import logging
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.batch import BatchArrays, Chunk
from llm_backend.engine.messages import ModelInfo, ModelKind, Start
from llm_backend.engine.model import DecodeError, LoadError, NoRoom, PairFrame
from llm_backend.engine.scheduler import Work

__all__ = ["LlamaModel", "NativeLog", "capture_log"]

_log = logging.getLogger("llm_backend.engine.llama")

# Handles and functions of the bindings are untyped: what crosses this edge is Any.
_Handle = Any

_ENCODERS = frozenset(  # architectures that embed, whatever else the file says
    {"bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"}
    | {"modern-bert", "eurobert", "t5encoder", "gemma-embedding"}
)
_YES_OR_NO = frozenset({"qwen3", "qwen3vl"})  # whose heads give the probabilities of two labels
_HEAD, _ONE_LAYER_HEADS = b"cls.output.weight", {"jina-bert-v2": b"cls.weight"}
_NO_POOLING = frozenset({"", "0"})  # a file's pooling type that says nothing
_FLASH_ATTENTION = {
    None: native.LLAMA_FLASH_ATTN_TYPE_AUTO,
    True: native.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    False: native.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
_NATIVE_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which the bindings do not name
_EMBEDDED_AT_ONCE = 32  # inputs of one pass of an embedding model, at least
_BOS_KEY = "tokenizer.ggml.bos_token_id"  # without it the native code makes one up
_PROOF_TOKENS = 32  # enough for the matrix kernels that a single token does not use


class NativeLog:
    """Lines of native code to our log at debug; the last errors are kept to explain a failure."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=4)
        self.callback = native.llama_log_callback(self._take)

    def _take(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode(errors="replace").strip()
        if not line or line == ".":
            return
        if level == _NATIVE_ERROR:
            self.errors.append(line)
        _log.debug("%s", line)


def capture_log() -> NativeLog:
    """Redirect the native log for as long as the value is kept."""
    log = NativeLog()
    native.llama_log_set(log.callback, ctypes.c_void_p(0))
    return log


class _Vocabulary:
    """Text to tokens and back."""

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle
        self._pieces: dict[int, bytes] = {}
        self.size: int = native.llama_vocab_n_tokens(handle)
        self._bos: int = native.llama_vocab_bos(handle)
        self._adds_bos: bool = native.llama_vocab_get_add_bos(handle)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a generation."""
        is_end = native.llama_vocab_is_eog
        return frozenset(token for token in range(self.size) if is_end(self._handle, token))

    @property
    def control_names(self) -> list[str]:
        """How control tokens are written."""
        control = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN
        return [
            self.name(token)
            for token in range(self.size)
            if native.llama_token_get_attr(self._handle, token) & control
        ]

    @cached_property
    def markers(self) -> frozenset[int]:
        """The tokens that are markup and no text: control tokens, `<tool_call>` and its like."""
        return frozenset(token for token in range(self.size) if self._is_marker(token))

    @cached_property
    def pair_frame(self) -> PairFrame:
        """How a pair of texts is framed: begin, query, end, separator, document, end; without an
        end token a separator ends the document too, as it ends any text of such models."""
        separator: int = native.llama_vocab_sep(self._handle)
        end: int = native.llama_vocab_eos(self._handle)
        ends = (
            [end if end >= 0 else separator] if native.llama_vocab_get_add_eos(self._handle) else []
        )
        separators = [separator] if native.llama_vocab_get_add_sep(self._handle) else []
        return PairFrame(
            before=_existing([self._bos] if self._adds_bos else []),
            between=_existing([*ends, *separators]),
            after=_existing(ends or separators),
        )

    @cached_property
    def infill(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, before a suffix and before what goes between them."""
        prefix: int = native.llama_vocab_fim_pre(self._handle)
        suffix: int = native.llama_vocab_fim_suf(self._handle)
        middle: int = native.llama_vocab_fim_mid(self._handle)
        return None if min(prefix, suffix, middle) < 0 else (prefix, suffix, middle)

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        """The tokens of a prompt, after the begin token if it is wanted and not there already."""
        tokens = self.tokenize(text, parse_special=parse_special)
        if add_bos and self._adds_bos and tokens[:1] != [self._bos]:
            tokens.insert(0, self._bos)
        return tokens

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """The tokens of a text; `add_special` frames it with the tokens that the model expects."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        while True:
            tokens = (native.llama_token * room)()
            count = native.llama_tokenize(
                self._handle, data, len(data), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; control tokens add none."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._render(token, special=False)
        return known

    def label(self, token: int) -> bytes:
        """The bytes by which a token is shown, control tokens too."""
        return self.piece(token) or self._render(token, special=True)

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, control tokens left out."""
        return b"".join(map(self.piece, tokens)).decode(errors="replace")

    def name(self, token: int) -> str:
        """How a token is written, control tokens too; empty for one that does not exist."""
        return self._render(token, special=True).decode(errors="replace") if token >= 0 else ""

    @property
    def bos_token(self) -> str:
        """The begin token as text."""
        return self.name(self._bos)

    @property
    def eos_token(self) -> str:
        """The end token as text."""
        return self.name(native.llama_vocab_eos(self._handle))

    def _is_marker(self, token: int) -> bool:
        kind = native.llama_token_get_attr(self._handle, token)
        if kind & (native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN):
            return True
        piece = self.piece(token) if kind & native.LLAMA_TOKEN_ATTR_USER_DEFINED else b""
        return piece.startswith(b"<") and piece.endswith(b">")

    def _render(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = native.llama_token_to_piece(self._handle, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


class LlamaModel:
    """A loaded model and its one context, set up as `Start` says.

    A slot is a sequence id. `forward` computes and gives logits, `embed` gives vectors.
    """

    def __init__(self, start: Start, log: NativeLog) -> None:
        self._start = start
        self._log = log
        _check_file(Path(start.model_path))
        native.llama_backend_init()
        self._model = self._load()
        self.vocabulary = _Vocabulary(native.llama_model_get_vocab(self._model))
        self._architecture = self._metadata("general.architecture")
        self.kind = self._kind()
        self.rerank_template = self._rerank_template()
        self.context_tokens = self._context_size()
        self.slots = start.slots
        if self.kind is not ModelKind.CHAT:
            self.slots = max(start.slots, _EMBEDDED_AT_ONCE)
        self.batch_tokens = max(start.batch_tokens, self.slots)
        if self.kind is not ModelKind.CHAT:
            self.batch_tokens = max(start.batch_tokens, self.context_tokens)
        self._context = self._open_context()
        self._memory = native.llama_get_memory(self._context)
        self._batch = _Batch(self.batch_tokens)
        self.can_roll_back = True

    def prove(self) -> None:
        """Compute a pass, as the first one is what kills a process on a processor that the build
        does not suit; find out whether the state can be cut."""
        token = next(iter(self.vocabulary.end_tokens), 0)
        length = min(_PROOF_TOKENS, self.context_tokens - 1, self.batch_tokens)
        if self.kind is not ModelKind.CHAT:
            self._pool([[token] * length], 1)
            return
        first, last = [token] * length, [token]
        self._decode([Chunk(slot=0, position=0, tokens=first, outputs=[length - 1])])
        self._decode([Chunk(slot=0, position=length, tokens=last, outputs=[0])])
        self.can_roll_back = self.truncate(0, length)
        self.truncate(0, 0)

    def forward(self, work: list[Work]) -> NDArray[np.float32]:
        """Compute `work`, in the order of slots; one row of logits for each output position. The
        rows are a view that the next pass overwrites."""
        return self._decode([_chunk(item) for item in work])

    def copy(self, source: int, target: int) -> None:
        """Give `target` all cells that `source` has, instead of its own."""
        self.truncate(target, 0)
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def truncate(self, slot: int, length: int) -> bool:
        """Keep the first `length` tokens of a slot. False: this state cannot be cut, it is as it
        was. To empty a slot never fails."""
        return bool(native.llama_memory_seq_rm(self._memory, slot, length, -1))

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """One L2-normalised vector for each input; all inputs together fit one pass."""
        vectors = self._pool(inputs, native.llama_model_n_embd_out(self._model))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1)
        return vectors

    def rank(self, inputs: list[list[int]]) -> NDArray[np.float64]:
        """The relevance, from 0 to 1, of each input: a query and a document. All inputs together
        fit one pass. It is what a head of two labels says of the first, and otherwise the logistic
        function of what the head says."""
        scores = self._pool(inputs, 1)[:, 0].astype(np.float64)
        if self._architecture in _YES_OR_NO:
            return scores
        return np.exp(-np.logaddexp(0, -scores))

    def _pool(self, inputs: list[list[int]], size: int) -> NDArray[np.float32]:
        """The first `size` numbers that the model gives for each input."""
        self._batch.fill(
            [
                Chunk(slot=slot, position=0, tokens=tokens, outputs=list(range(len(tokens))))
                for slot, tokens in enumerate(inputs)
            ]
        )
        if self._memory:
            native.llama_memory_clear(self._memory, False)
        encodes = not native.llama_model_has_decoder(self._model) or not self._memory
        compute = native.llama_encode if encodes else native.llama_decode
        status = compute(self._context, self._batch.native)
        if status:
            raise DecodeError(
                f"the model could not read its inputs: status {status}; {self._reason()}"
            )
        results = np.empty((len(inputs), size), dtype=np.float32)
        for slot in range(len(inputs)):
            pointer = native.llama_get_embeddings_seq(self._context, slot)
            results[slot] = np.ctypeslib.as_array(pointer, shape=(size,))
        return results

    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return ModelInfo(
            architecture=self._architecture,
            name=self._metadata("general.name"),
            description=_text(native.llama_model_desc, self._model),
            parameters=native.llama_model_n_params(self._model),
            size_bytes=native.llama_model_size(self._model),
            vocabulary_size=self.vocabulary.size,
            embedding_size=native.llama_model_n_embd_out(self._model),
            trained_context_tokens=native.llama_model_n_ctx_train(self._model),
            context_tokens=self.context_tokens,
            slots=self.slots,
            chat_template=self._chat_template(None),
            tool_template=self._chat_template(b"tool_use"),
            bos_token=self.vocabulary.bos_token if self._metadata(_BOS_KEY) else "",
            eos_token=self.vocabulary.eos_token,
            control_tokens=self.vocabulary.control_names,
            kind=self.kind,
            can_infill=self.vocabulary.infill is not None,
            extra_buffers=self._start.use_extra_buffers,
        )

    def _chat_template(self, name: bytes | None) -> str | None:
        template = native.llama_model_chat_template(self._model, name)
        return template.decode(errors="replace") if template else None

    def _load(self) -> _Handle:
        params = native.llama_model_default_params()
        params.n_gpu_layers = self._start.gpu_layers
        params.use_extra_bufts = self._start.use_extra_buffers
        model = native.llama_model_load_from_file(self._start.model_path.encode(), params)
        if not model:
            raise LoadError(f"{self._start.model_path} cannot be loaded: {self._reason()}")
        return model

    def _open_context(self) -> _Handle:
        start, params = self._start, native.llama_context_default_params()
        params.n_seq_max = self.slots
        params.n_batch = params.n_ubatch = self.batch_tokens
        params.n_threads = params.n_threads_batch = start.threads
        params.flash_attn_type = _FLASH_ATTENTION[start.flash_attention]
        params.no_perf = True
        if self.kind is not ModelKind.CHAT:
            params.embeddings, params.kv_unified = True, True
            params.n_ctx = self.batch_tokens
            params.pooling_type = self._pooling()
        else:
            params.kv_unified = start.unified_cells
            params.type_k = params.type_v = getattr(native, f"GGML_TYPE_{start.cache_type.upper()}")
            params.n_ctx = start.cells or self.slots * self.context_tokens
            params.n_outputs_max = self.slots + start.logit_rows
            params.n_outputs_max_per_seq = params.n_outputs_max
        context = native.llama_init_from_model(self._model, params)
        if not context:
            raise LoadError(
                f"there is no room for {self.slots} slots of {self.context_tokens} tokens: "
                f"{self._reason()}"
            )
        return context

    def _context_size(self) -> int:
        start, trained = self._start, int(native.llama_model_n_ctx_train(self._model))
        if start.context_tokens is None:
            return min(trained, start.default_context_tokens)
        if self.kind is not ModelKind.CHAT:  # its positions may be a table that ends there
            return min(trained, start.context_tokens)
        return start.context_tokens

    def _kind(self) -> ModelKind:
        """What the file says it pools; where it says nothing, an encoder with a classification head
        of one label ranks, as few rerank models say what they are."""
        if self._start.kind is not None:
            return self._start.kind
        pooling = self._metadata(f"{self._architecture}.pooling_type")
        if pooling == str(native.LLAMA_POOLING_TYPE_RANK):
            return ModelKind.RERANK
        if pooling not in _NO_POOLING:
            return ModelKind.EMBEDDING
        if self._architecture not in _ENCODERS:
            return ModelKind.CHAT
        has_one_label = native.llama_model_n_cls_out(self._model) == 1
        return ModelKind.RERANK if has_one_label and self._has_head() else ModelKind.EMBEDDING

    def _has_head(self) -> bool:
        head = _ONE_LAYER_HEADS.get(self._architecture, _HEAD)
        return _has_tensor(self._start.model_path, head)

    def _rerank_template(self) -> str | None:
        """What a rerank model reads a pair in, if the file brings it; raises `LoadError` for a
        model whose scores would mean nothing."""
        if self.kind is not ModelKind.RERANK:
            return None
        path, labels = self._start.model_path, native.llama_model_n_cls_out(self._model)
        if not self._has_head():
            raise LoadError(f"{path} has no classification head, so it cannot rank documents")
        if labels != (wanted := 2 if self._architecture in _YES_OR_NO else 1):
            raise LoadError(f"{path} has a head of {labels} labels; to rank it would have {wanted}")
        template = self._chat_template(b"rerank")
        if template is not None and not ("{query}" in template and "{document}" in template):
            raise LoadError(f"{path} has a rerank template without {{query}} and {{document}}")
        return template

    def _pooling(self) -> int:
        """The file's own pooling; where it has none, the last token's or the mean."""
        rank = int(native.LLAMA_POOLING_TYPE_RANK)
        if self.kind is ModelKind.RERANK:
            return rank
        if self._metadata(f"{self._architecture}.pooling_type") not in {*_NO_POOLING, str(rank)}:
            return int(native.LLAMA_POOLING_TYPE_UNSPECIFIED)
        causal = self._metadata(f"{self._architecture}.attention.causal") != "false"
        if causal and self._architecture not in _ENCODERS:
            return int(native.LLAMA_POOLING_TYPE_LAST)
        return int(native.LLAMA_POOLING_TYPE_MEAN)

    def _decode(self, chunks: list[Chunk]) -> NDArray[np.float32]:
        outputs = self._batch.fill(chunks)
        status = native.llama_decode(self._context, self._batch.native)
        if status == 1:
            raise NoRoom
        if status:
            raise DecodeError(f"the forward pass failed: status {status}; {self._reason()}")
        shape = (outputs, self.vocabulary.size)
        if not outputs:
            native.llama_synchronize(self._context)
            return np.empty(shape, dtype=np.float32)
        return np.ctypeslib.as_array(native.llama_get_logits(self._context), shape=shape)

    def _metadata(self, key: str) -> str:
        return _text(native.llama_model_meta_val_str, self._model, key.encode())

    def _reason(self) -> str:
        return self._log.errors[-1] if self._log.errors else "the native code gives no reason"


class _Batch:
    """A native batch over arrays of ours."""

    def __init__(self, capacity: int) -> None:
        self.arrays = BatchArrays(capacity)
        self.native = native.llama_batch()
        kinds = dict(native.llama_batch._fields_)
        for name, array in (
            ("token", self.arrays.tokens),
            ("pos", self.arrays.positions),
            ("n_seq_id", self.arrays.slot_counts),
            ("seq_id", self.arrays.slot_addresses),
            ("logits", self.arrays.outputs),
        ):
            setattr(self.native, name, ctypes.cast(array.ctypes.data, kinds[name]))

    def fill(self, chunks: list[Chunk]) -> int:
        """Put `chunks` in; gives the number of outputs."""
        self.arrays.fill(chunks)
        self.native.n_tokens = self.arrays.length
        return self.arrays.wanted


def _chunk(work: Work) -> Chunk:
    sequence, start = work.sequence, work.sequence.computed
    assert sequence.slot is not None, "who is planned has a slot"
    return Chunk(
        slot=sequence.slot,
        position=start,
        tokens=work.tokens,
        outputs=[position - start for position in work.output_positions],
    )


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror or error}") from error
    if magic != b"GGUF":
        raise LoadError(f"{path} is not a GGUF file")


class _GgufParams(ctypes.Structure):
    """`gguf_init_params`, which the bindings lack."""

    _fields_: ClassVar = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def _has_tensor(path: str, name: bytes) -> bool:
    """Whether the file has this tensor, which a loaded model does not tell."""
    library = native.llama_cpp._lib
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufParams]
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_find_tensor.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.gguf_find_tensor.restype = ctypes.c_int64
    library.gguf_free.argtypes = [ctypes.c_void_p]
    header = library.gguf_init_from_file(path.encode(), _GgufParams(True, None))
    if not header:
        raise LoadError(f"the header of {path} cannot be read")
    place: int = library.gguf_find_tensor(header, name)
    library.gguf_free(header)
    return place >= 0


def _existing(tokens: list[int]) -> list[int]:
    """Without those that the vocabulary does not have."""
    return [token for token in tokens if token >= 0]


def _text(function: Any, *arguments: Any) -> str:  # Any: functions of the bindings are untyped
    room = 256
    while True:
        buffer = ctypes.create_string_buffer(room)
        count = int(function(*arguments, buffer, room))
        if count < room:
            return buffer.value.decode(errors="replace") if count > 0 else ""
        room = count + 1
