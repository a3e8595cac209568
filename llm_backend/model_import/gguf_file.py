"""Writes an embedding model as a `bert` GGUF file: metadata, then tensors.

Weight matrices are written in the `outtype`; biases, norms, position and token type embeddings stay
float32, as llama.cpp's graph requires.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llm_backend.extras import install_command
from llm_backend.model_import.errors import ConversionError
from llm_backend.model_import.folder import Network, Pooling
from llm_backend.model_import.tensors import PlannedTensor
from llm_backend.model_import.vocabulary import TokenKind, WordPieceVocabulary

OutType = Literal["f32", "f16", "q8_0"]
Progress = Callable[[int, int], None]
"""Called with the bytes of tensors written so far, and in total."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingModelFile:
    """Content of the GGUF file: network, pooling, vocabulary, tensors."""

    name: str
    network: Network
    pooling: Pooling
    vocabulary: WordPieceVocabulary
    tensors: Sequence[PlannedTensor]


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """One tensor, its GGML type in the file, and its size in bytes."""

    tensor: PlannedTensor
    kind: Any  # a gguf.GGMLQuantizationType
    size_bytes: int


def gguf_library() -> Any:  # Any: the library ships no types
    """Imports the gguf package; raises `ConversionError` if the extra `convert` is missing."""
    try:
        import gguf
    except ImportError as error:
        raise ConversionError(
            f"Converting a model needs the gguf package: {install_command('convert')}."
        ) from error
    return gguf


def write_gguf(
    gguf: Any, model: EmbeddingModelFile, path: Path, outtype: OutType, progress: Progress | None
) -> None:
    """Writes the file, one tensor in memory at a time; raises `OSError` if a write fails."""
    encodings = [_encoding(gguf, tensor, outtype) for tensor in model.tensors]
    writer = gguf.GGUFWriter(path, "bert")
    try:
        _describe_model(gguf, writer, model, outtype)
        _describe_vocabulary(gguf, writer, model.vocabulary)
        for encoding in encodings:
            writer.add_tensor_info(
                encoding.tensor.name,
                encoding.tensor.stored.shape,
                np.dtype(np.float32),
                encoding.size_bytes,
                raw_dtype=encoding.kind,
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_tensors(gguf, writer, encodings, progress)
    finally:
        writer.close()


def _encoding(gguf: Any, tensor: PlannedTensor, outtype: OutType) -> _Encoding:
    """Chooses the tensor's type: float16 if its rows are not multiples of Q8_0's block."""
    types = gguf.GGMLQuantizationType
    kind = {"f32": types.F32, "f16": types.F16, "q8_0": types.Q8_0}[outtype]
    if not tensor.is_matrix:
        kind = types.F32
    if tensor.stored.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        kind = types.F16
    block_values, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    size_bytes = int(np.prod(tensor.stored.shape)) // block_values * block_bytes
    return _Encoding(tensor=tensor, kind=kind, size_bytes=size_bytes)


def _describe_model(gguf: Any, writer: Any, model: EmbeddingModelFile, outtype: OutType) -> None:
    network = model.network
    file_types = {
        "f32": gguf.LlamaFileType.ALL_F32,
        "f16": gguf.LlamaFileType.MOSTLY_F16,
        "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    }
    pooling_types = {"mean": gguf.PoolingType.MEAN, "cls": gguf.PoolingType.CLS}
    writer.add_name(model.name)
    writer.add_file_type(file_types[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(network.context_tokens)
    writer.add_embedding_length(network.embedding_length)
    writer.add_feed_forward_length(network.feed_forward_length)
    writer.add_block_count(network.layers)
    writer.add_head_count(network.heads)
    writer.add_layer_norm_eps(network.layer_norm_epsilon)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling_types[model.pooling])
    writer.add_token_type_count(network.token_types)


def _describe_vocabulary(gguf: Any, writer: Any, vocabulary: WordPieceVocabulary) -> None:
    token_types = {
        TokenKind.NORMAL: gguf.TokenType.NORMAL,
        TokenKind.SPECIAL: gguf.TokenType.CONTROL,
        TokenKind.USER_DEFINED: gguf.TokenType.USER_DEFINED,
        TokenKind.UNUSED: gguf.TokenType.UNUSED,
    }
    writer.add_tokenizer_model("bert")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([token_types[kind] for kind in vocabulary.kinds])
    # llama.cpp prepends the bos token to a text, which for BERT is [CLS]
    writer.add_bos_token_id(vocabulary.special_ids["cls"])
    writer.add_uint32("tokenizer.ggml.cls_token_id", vocabulary.special_ids["cls"])
    writer.add_sep_token_id(vocabulary.special_ids["sep"])
    writer.add_unk_token_id(vocabulary.special_ids["unk"])
    writer.add_pad_token_id(vocabulary.special_ids["pad"])
    writer.add_mask_token_id(vocabulary.special_ids["mask"])
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", vocabulary.lowercase)
    writer.add_bool("tokenizer.ggml.normalizer.strip_accents", vocabulary.strip_accents)


def _write_tensors(
    gguf: Any, writer: Any, encodings: Sequence[_Encoding], progress: Progress | None
) -> None:
    total = sum(encoding.size_bytes for encoding in encodings)
    written = 0
    for encoding in encodings:
        writer.write_tensor_data(_encode(gguf, encoding))
        written += encoding.size_bytes
        if progress is not None:
            progress(written, total)


def _encode(gguf: Any, encoding: _Encoding) -> npt.NDArray[Any]:
    types = gguf.GGMLQuantizationType
    values = encoding.tensor.stored.load()
    if encoding.kind is types.F32:
        return values
    if encoding.kind is types.F16:
        return _to_float16(encoding.tensor.name, values)
    quantized: npt.NDArray[Any] = gguf.quants.quantize(values, encoding.kind)
    return quantized


def _to_float16(name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halved = values.astype(np.float16)
    if not np.isfinite(halved).all():
        raise ConversionError(f"The tensor {name} holds values beyond float16: convert to f32.")
    return halved
