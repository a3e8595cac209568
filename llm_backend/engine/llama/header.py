"""Header of a model's GGUF file, and the model's kind."""

import ctypes
from pathlib import Path
from typing import Any, ClassVar

import llama_cpp as native

from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.messages import ModelKind
from llm_backend.engine.model import LoadError
from llm_backend.model_files import GgufHeader, HeaderError, read_header

_ENCODERS = frozenset(  # architectures of embedding models, whatever else the file says
    {"bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3"}
    | {"modern-bert", "eurobert", "t5encoder", "gemma-embedding"}
)
# architectures whose classification heads return the probabilities of two labels
_TWO_LABEL_ARCHITECTURES = frozenset({"qwen3", "qwen3vl"})
_HEAD, _ONE_LAYER_HEADS = b"cls.output.weight", {"jina-bert-v2": b"cls.weight"}
_NO_POOLING = frozenset({"", "0"})  # pooling types that mean none


class Header:
    """The header of a model that is loaded from `path`. Without `kind`, the file determines it."""

    def __init__(self, model: Handle, path: Path, kind: ModelKind | None) -> None:
        self._model = model
        self._path = path
        self.architecture = self.text("general.architecture")
        self.kind = kind or self._kind()

    def text(self, key: str) -> str:
        """Returns the value of a metadata key; empty if there is none."""
        return native_text(native.llama_model_meta_val_str, self._model, key.encode())

    def chat_template(self, name: bytes | None = None) -> str | None:
        """Returns the file's chat template of this name, or its default template for None."""
        template = native.llama_model_chat_template(self._model, name)
        return template.decode(errors="replace") if template else None

    @property
    def gives_probabilities(self) -> bool:
        """True if the classification head returns probabilities, of two labels."""
        return self.architecture in _TWO_LABEL_ARCHITECTURES

    def rerank_template(self) -> str | None:
        """Returns the template for pairs of query and document, if the file of a rerank model has
        one. Raises `LoadError` for a rerank model whose scores would be meaningless."""
        if self.kind is not ModelKind.RERANK:
            return None
        path, labels = self._path, native.llama_model_n_cls_out(self._model)
        if not self._has_head():
            raise LoadError(f"{path} has no classification head, so it cannot rank documents")
        if labels != (expected := 2 if self.gives_probabilities else 1):
            raise LoadError(
                f"{path} has a head of {labels} labels; a model that ranks must have {expected}"
            )
        template = self.chat_template(b"rerank")
        if template is not None and not ("{query}" in template and "{document}" in template):
            raise LoadError(f"{path} has a rerank template without {{query}} and {{document}}")
        return template

    def pooling(self) -> int:
        """Returns the pooling type. Without one in the file, a causal model pools by the last
        token, and another one by the mean."""
        rank = int(native.LLAMA_POOLING_TYPE_RANK)
        if self.kind is ModelKind.RERANK:
            return rank
        if self.text(f"{self.architecture}.pooling_type") not in {*_NO_POOLING, str(rank)}:
            return int(native.LLAMA_POOLING_TYPE_UNSPECIFIED)
        causal = self.text(f"{self.architecture}.attention.causal") != "false"
        if causal and self.architecture not in _ENCODERS:
            return int(native.LLAMA_POOLING_TYPE_LAST)
        return int(native.LLAMA_POOLING_TYPE_MEAN)

    def _kind(self) -> ModelKind:
        """Returns the kind by the file's pooling type. Few rerank models have one, so an encoder
        without it ranks if it has a classification head of one label."""
        pooling = self.text(f"{self.architecture}.pooling_type")
        if pooling == str(native.LLAMA_POOLING_TYPE_RANK):
            return ModelKind.RERANK
        if pooling not in _NO_POOLING:
            return ModelKind.EMBEDDING
        if self.architecture not in _ENCODERS:
            return ModelKind.CHAT
        has_one_label = native.llama_model_n_cls_out(self._model) == 1
        return ModelKind.RERANK if has_one_label and self._has_head() else ModelKind.EMBEDDING

    def _has_head(self) -> bool:
        return _has_tensor(self._path, _ONE_LAYER_HEADS.get(self.architecture, _HEAD))


def check_file(path: Path) -> GgufHeader:
    """Returns the header of a file. Raises `LoadError` for a file that cannot be read, is not GGUF,
    or is truncated."""
    try:
        return read_header(path)
    except HeaderError as error:
        raise LoadError(str(error).removesuffix(".")) from error


class _GgufParams(ctypes.Structure):
    """`gguf_init_params`, which the bindings lack."""

    _fields_: ClassVar = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


def _has_tensor(path: Path, name: bytes) -> bool:
    """True if the file has this tensor. The native code does not tell it of a loaded model."""
    library = native.llama_cpp._lib
    library.gguf_init_from_file.argtypes = [ctypes.c_char_p, _GgufParams]
    library.gguf_init_from_file.restype = ctypes.c_void_p
    library.gguf_find_tensor.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.gguf_find_tensor.restype = ctypes.c_int64
    library.gguf_free.argtypes = [ctypes.c_void_p]
    header = library.gguf_init_from_file(bytes(path), _GgufParams(True, None))
    if not header:
        raise LoadError(f"the header of {path} cannot be read")
    index: int = library.gguf_find_tensor(header, name)
    library.gguf_free(header)
    return index >= 0


# Any: functions of the bindings are untyped
def native_text(function: Any, *arguments: Any) -> str:
    """Returns the text, of any length, that a native function writes into a buffer."""
    size = 256
    while True:
        buffer = ctypes.create_string_buffer(size)
        count = int(function(*arguments, buffer, size))
        if count < size:
            return buffer.value.decode(errors="replace") if count > 0 else ""
        size = count + 1
