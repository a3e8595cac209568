"""Converts a BERT embedding model's folder to one GGUF file for llama.cpp.

The model is read and checked first, then written to a temporary file next to the target, which is
renamed to the target only when it is complete.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from llm_backend.model_import.errors import ConversionError
from llm_backend.model_import.folder import Pooling, read_network, read_pooling
from llm_backend.model_import.gguf_file import (
    EmbeddingModelFile,
    OutType,
    Progress,
    gguf_library,
    write_gguf,
)
from llm_backend.model_import.safetensors import WEIGHTS_FILE, open_tensors
from llm_backend.model_import.tensors import plan_tensors
from llm_backend.model_import.vocabulary import read_vocabulary


@dataclass(frozen=True, kw_only=True)
class ConvertedModel:
    """The converted file and its properties."""

    path: Path
    name: str
    outtype: OutType
    size_bytes: int
    tensors: int
    embedding_length: int
    context_tokens: int
    pooling: Pooling


def convert(
    source: Path,
    target: Path,
    *,
    outtype: OutType = "f16",
    force: bool = False,
    progress: Progress | None = None,
) -> ConvertedModel:
    """Converts the BERT model in the folder `source` to the GGUF file `target`, named after it.

    `target` is replaced only with `force`. Raises `ConversionError`, and leaves no file behind,
    if llama.cpp's `bert` does not support the model or the file cannot be written.
    """
    gguf = gguf_library()
    if target.exists() and not force:
        raise ConversionError(f"{target} exists already and is replaced only when forced.")
    model = _read(source, target.stem)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        write_gguf(gguf, model, partial, outtype, progress)
        _sync(partial)
        os.replace(partial, target)
    except OSError as error:
        # numpy gives no reason for a short write, which a full disk causes
        reason = error.strerror or "only a part of it was written"
        raise ConversionError(f"{target} could not be written: {reason}.") from error
    finally:
        partial.unlink(missing_ok=True)
    return ConvertedModel(
        path=target,
        name=model.name,
        outtype=outtype,
        size_bytes=target.stat().st_size,
        tensors=len(model.tensors),
        embedding_length=model.network.embedding_length,
        context_tokens=model.network.context_tokens,
        pooling=model.pooling,
    )


def _read(source: Path, name: str) -> EmbeddingModelFile:
    if not source.is_dir():
        raise ConversionError(f"{source} is not a model folder: there is no such folder.")
    try:
        network = read_network(source)
        return EmbeddingModelFile(
            name=name,
            network=network,
            pooling=read_pooling(source),
            vocabulary=read_vocabulary(source, network.vocabulary_size),
            tensors=plan_tensors(network, open_tensors(source / WEIGHTS_FILE)),
        )
    except OSError as error:
        raise ConversionError(f"{error.filename} cannot be read: {error.strerror}.") from error
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ConversionError(
            f"A file of the model folder {source} has a form that is not understood: {error!r}."
        ) from error


def _sync(path: Path) -> None:
    """Syncs the file to disk, so that the renamed file is never incomplete after a crash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
