"""Projectors of Voxtral, rewritten so that llama.cpp computes what the model was trained with.

Voxtral joins four frames of its encoder to one embedding: 375 in 30 s. llama.cpp averages pairs of
frames before that, which makes 187 embeddings of blurred frames. Its graph for GLM-ASR (`glma`)
does the same without averaging: a norm, four frames joined, two dense layers. It also adds biases,
and one embedding at each end of the audio. So the rewritten file has this type and its names of
tensors, with biases of zero, and the caller drops the embeddings at the ends.
"""

import io
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from llm_backend.model_files import AUDIO_TYPE_KEYS, GgufHeader, audio_projector_types
from llm_backend.operating_system import memory_file

BEGIN_AUDIO = b"[BEGIN_AUDIO]"
"""Text of the token before audio. llama.cpp adds it for `voxtral` only."""
END_ROWS = 1
"""Embeddings at each end of the audio that are not the model's."""

_TYPE_KEYS = tuple(key.encode() for key in AUDIO_TYPE_KEYS)
_OLD_TYPE, _NEW_TYPE = b"voxtral", b"glma"
_NEW_NAMES = {
    b"a.post_ln.weight": b"mm.a.norm_pre.weight",
    b"a.post_ln.bias": b"mm.a.norm_pre.bias",
}
_FIRST, _SECOND = b"mm.a.mlp.1", b"mm.a.mlp.2"
_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_FLOAT32, _FLOAT32_BYTES = 0, 4
_DEFAULT_ALIGNMENT = 32
_COPY_BYTES = 1 << 20


def is_rewritable(header: GgufHeader) -> bool:
    """True for a projector of Voxtral that has the tensors which the rewritten one needs."""
    needed = {name.decode() for name in (*_NEW_NAMES, _FIRST + b".weight", _SECOND + b".weight")}
    return (
        _OLD_TYPE.decode() in audio_projector_types(header) and needed <= header.tensor_bytes.keys()
    )


@contextmanager
def rewrite(path: Path, header: GgufHeader) -> Iterator[Path]:
    """Yields the path of the rewritten file, which is in memory on Linux. `header` is that of the
    file at `path`, which must be rewritable. Raises `OSError`."""
    alignment = int(header.values.get("general.alignment", _DEFAULT_ALIGNMENT))
    with path.open("rb") as source, memory_file("voxtral") as (target, target_path):
        prefix, entries, tensors = _read_header(source)
        data_bytes = -(-(path.stat().st_size - header.header_bytes) // alignment) * alignment
        added = _added_tensors(tensors, data_bytes, alignment)
        target.write(_encode_header(prefix, entries, [*map(_rename, tensors), *added], alignment))
        source.seek(header.header_bytes)
        start = target.tell()
        shutil.copyfileobj(source, target, _COPY_BYTES)
        end = added[-1].offset + added[-1].rows * _FLOAT32_BYTES
        target.truncate(start + -(-end // alignment) * alignment)  # zeros
        target.flush()
        yield target_path


@dataclass(frozen=True, kw_only=True)
class _TensorInfo:
    name: bytes
    dimensions: tuple[int, ...]
    kind: int
    offset: int

    @property
    def rows(self) -> int:
        """The size of its last dimension."""
        return self.dimensions[-1]


@dataclass(frozen=True, kw_only=True)
class _MetadataEntry:
    """A key, and the encoded type and value that follow it in the file."""

    key: bytes
    value: bytes


def _read_header(file: BinaryIO) -> tuple[bytes, list[_MetadataEntry], list[_TensorInfo]]:
    """Reads a file's header: the magic number with the version, the entries and the tensors."""
    prefix = file.read(8)
    tensor_count, entry_count = _number(file, "<Q"), _number(file, "<Q")
    entries = []
    for _ in range(entry_count):
        key, start = _string(file), file.tell()
        _skip_value(file, _number(file, "<I"))
        end = file.tell()
        file.seek(start)
        entries.append(_MetadataEntry(key=key, value=file.read(end - start)))
    return prefix, entries, [_tensor(file) for _ in range(tensor_count)]


def _tensor(file: BinaryIO) -> _TensorInfo:
    name = _string(file)
    dimensions = tuple(_number(file, "<Q") for _ in range(_number(file, "<I")))
    return _TensorInfo(
        name=name, dimensions=dimensions, kind=_number(file, "<I"), offset=_number(file, "<Q")
    )


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _string(file)
    elif kind == _ARRAY:
        item_kind, count = _number(file, "<I"), _number(file, "<Q")
        for _ in range(count):
            _skip_value(file, item_kind)
    else:
        file.seek(_SCALAR_BYTES[kind], io.SEEK_CUR)


def _rename(tensor: _TensorInfo) -> _TensorInfo:
    return replace(tensor, name=_NEW_NAMES.get(tensor.name, tensor.name))


def _added_tensors(
    tensors: Sequence[_TensorInfo], data_bytes: int, alignment: int
) -> list[_TensorInfo]:
    """Returns the biases and the embeddings at the ends. All are zeros, and follow the data."""
    rows = {one.name: one.rows for one in tensors}
    width = rows[_SECOND + b".weight"]
    sizes = {
        _FIRST + b".bias": rows[_FIRST + b".weight"],
        _SECOND + b".bias": width,
        b"v.boi": width,
        b"v.eoi": width,
    }
    added, offset = [], data_bytes
    for name, size in sizes.items():
        added.append(_TensorInfo(name=name, dimensions=(size,), kind=_FLOAT32, offset=offset))
        offset += -(-size * _FLOAT32_BYTES // alignment) * alignment
    return added


def _encode_header(
    prefix: bytes, entries: Sequence[_MetadataEntry], tensors: Sequence[_TensorInfo], alignment: int
) -> bytes:
    parts = [prefix, struct.pack("<QQ", len(tensors), len(entries))]
    for entry in entries:
        is_type = entry.key in _TYPE_KEYS and entry.value.endswith(_OLD_TYPE)
        value = struct.pack("<I", _STRING) + _pack(_NEW_TYPE) if is_type else entry.value
        parts += [_pack(entry.key), value]
    for one in tensors:
        layout = f"<I{len(one.dimensions)}QIQ"
        parts += [
            _pack(one.name),
            struct.pack(layout, len(one.dimensions), *one.dimensions, one.kind, one.offset),
        ]
    header = b"".join(parts)
    return header.ljust(-(-len(header) // alignment) * alignment, b"\0")


def _string(file: BinaryIO) -> bytes:
    return file.read(_number(file, "<Q"))


def _number(file: BinaryIO, layout: str) -> int:
    (number,) = struct.unpack(layout, file.read(struct.calcsize(layout)))
    return int(number)


def _pack(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text
