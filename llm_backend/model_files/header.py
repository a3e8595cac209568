"""GGUF header parser in pure Python: metadata, number of parameters, size of the weights."""

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

_T = TypeVar("_T")

GGUF_MAGIC = b"GGUF"  # first bytes of every GGUF file

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
TENSOR_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 40), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36),
    41: (128, 18),
}  # fmt: skip
"""Elements and bytes per block, by GGML tensor type."""
_LONGEST_ARRAY = 4096  # longest array that is stored in memory; vocabularies are longer
_KEYS, _TENSORS, _DIMENSIONS = 100_000, 1_000_000, 8  # more than any file has
_PART = re.compile(r"^(.*)-00001-of-(\d{5})\.gguf$")


class HeaderError(Exception):
    """Raised if a file's header cannot be read; the message is one sentence with the reason."""


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """Metadata of a model: `values` by key, without long arrays; counts and sizes of all parts of a
    split model. `header_bytes` come before the tensors of the first part. `tensor_bytes` has the
    size of each tensor in the file, padding included; `tensor_elements` the number of its elements.
    """

    path: Path
    values: Mapping[str, Any]
    tensors: int
    parameters: int
    weights_bytes: int
    header_bytes: int = 0
    tensor_bytes: Mapping[str, int] = field(default_factory=dict)
    tensor_elements: Mapping[str, int] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """`general.architecture`, llama.cpp's name of the network."""
        return str(self.values.get("general.architecture", ""))

    def of_architecture(self, key: str) -> Any:
        """Returns the value of a key prefixed with the architecture's name; None if absent."""
        return self.values.get(f"{self.architecture}.{key}")


def read_header(path: Path) -> GgufHeader:
    """Reads the header of a model's file, and of its further parts. Raises `HeaderError`."""
    parts = [_read(path), *map(_read, model_parts(path)[1:])]
    return replace(
        parts[0],
        tensors=sum(one.tensors for one in parts),
        parameters=sum(one.parameters for one in parts),
        weights_bytes=sum(one.weights_bytes for one in parts),
        tensor_bytes={k: v for one in parts for k, v in one.tensor_bytes.items()},
        tensor_elements={k: v for one in parts for k, v in one.tensor_elements.items()},
    )


def first_value(path: Path, key: str) -> Any:
    """Returns the value of a key if it is the header's first, as that of the architecture usually
    is; None otherwise. Raises `HeaderError`."""
    return _read_file(path, lambda reader: reader.first_value(key))


def model_parts(path: Path) -> list[Path]:
    """Returns the files of a model whose first or only file is at `path`."""
    found = _PART.match(path.name)
    if found is None:
        return [path]
    count = int(found[2])
    return [path.with_name(f"{found[1]}-{at:05}-of-{count:05}.gguf") for at in range(1, count + 1)]


def _read(path: Path) -> GgufHeader:
    return _read_file(path, _HeaderReader.header)


def _read_file(path: Path, read: "Callable[[_HeaderReader], _T]") -> _T:
    try:
        with path.open("rb") as file:
            return read(_HeaderReader(file, path))
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (UnicodeDecodeError, OverflowError) as error:
        raise HeaderError(f"The header of {path} is broken: {error}.") from error


def _sizes(tensors: Sequence["_Tensor"], end: int) -> dict[str, int]:
    """Returns the distance from each tensor to the next, which is its size even for an unknown
    type."""
    ordered = sorted(tensors, key=lambda one: one.start)
    ends = [one.start for one in ordered[1:]] + [max(end, 0)]
    return {one.name: max(0, at - one.start) for one, at in zip(ordered, ends, strict=False)}


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """A tensor's number of elements, and its start and end offsets in the tensor data; the end
    equals the start if the type is unknown."""

    name: str
    elements: int
    start: int
    end: int


class _HeaderReader:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._size = path.stat().st_size

    def first_value(self, key: str) -> Any:
        self._tensor_count()
        return self._entries(min(1, self._count(_KEYS))).get(key)

    def header(self) -> GgufHeader:
        tensors = self._tensor_count()
        values = self._entries(self._count(_KEYS))
        found = [self._tensor() for _ in range(tensors)]
        self._check_end(self._file.tell(), "header")
        declared = values.get("general.alignment")
        alignment = declared if isinstance(declared, int) and declared > 0 else 32
        data_starts = -(-self._file.tell() // alignment) * alignment
        self._check_end(max((data_starts + one.end for one in found), default=0), "tensors")
        return GgufHeader(
            path=self._path,
            values=values,
            tensors=tensors,
            parameters=sum(one.elements for one in found),
            weights_bytes=max(0, self._size - data_starts),
            header_bytes=data_starts,
            tensor_bytes=_sizes(found, self._size - data_starts),
            tensor_elements={one.name: one.elements for one in found},
        )

    def _tensor_count(self) -> int:
        if self._file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            raise HeaderError(f"{self._path} is not a GGUF file: convert it, or name another.")
        if (version := self._number("<I")) not in _VERSIONS:
            raise HeaderError(f"{self._path} is GGUF of version {version}, which is not known.")
        return self._count(_TENSORS)

    def _entries(self, count: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            values[key] = self._value(self._number("<I"), key, values)
        return values

    def _tensor(self) -> _Tensor:
        name = self._string()
        elements = 1
        for _ in range(self._check_count(self._number("<I"), _DIMENSIONS)):
            elements *= self._number("<Q")
        of_block, block_bytes = TENSOR_BLOCKS.get(self._number("<I"), (1, 0))
        offset = self._number("<Q")
        end = offset + elements // of_block * block_bytes
        return _Tensor(name=name, elements=elements, start=offset, end=end)

    def _check_end(self, end: int, part: str) -> None:
        """Raises `HeaderError` for a truncated file."""
        if end > self._size:
            raise HeaderError(
                f"{self._path} is cut short: its {part} would end at byte {end:,}, and it has "
                f"{self._size:,}; copy or download it again."
            )

    def _value(self, kind: int, key: str, values: dict[str, Any]) -> Any:
        """Reads the next value; stores the length of an array under `KEY.length`."""
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(self._format(kind))
        kind, count = self._number("<I"), self._count(self._size)
        values[f"{key}.length"] = count
        if kind == _STRING:
            return self._strings(count)
        form = self._format(kind)
        if count > _LONGEST_ARRAY:
            self._file.seek(struct.calcsize(form) * count, 1)
            return None
        return [self._number(form) for _ in range(count)]

    def _strings(self, count: int) -> list[str] | None:
        if count <= _LONGEST_ARRAY:
            return [self._string() for _ in range(count)]
        read, seek = self._bytes, self._file.seek
        for _ in range(count):
            (length,) = struct.unpack("<Q", read(8))
            seek(self._check_count(length, self._size), 1)
        return None

    def _format(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise HeaderError(f"The header of {self._path} has a value of an unknown type, {kind}.")
        return _SCALARS[kind]

    def _string(self) -> str:
        return self._bytes(self._count(self._size)).decode(errors="replace")

    def _count(self, limit: int) -> int:
        return self._check_count(self._number("<Q"), limit)

    def _check_count(self, count: int, limit: int) -> int:
        if count > limit:
            raise HeaderError(
                f"The header of {self._path} is broken: it announces {count} "
                "keys, tensors or bytes, more than there can be."
            )
        return count

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack(form, self._bytes(struct.calcsize(form)))
        return number

    def _bytes(self, length: int) -> bytes:
        found = self._file.read(length)
        if len(found) < length:
            self._check_end(self._file.tell() + length - len(found), "header")
        return found
