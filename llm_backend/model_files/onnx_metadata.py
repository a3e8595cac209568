"""Reads the metadata of ONNX files without the library, and without their weights."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from llm_backend.model_files.header import HeaderError

TOKENS_FILE = "tokens.txt"
"""File beside a model, with the symbols of its tokens."""

_GRAPH_FIELD, _METADATA_FIELD = 7, 14  # of protobuf's `ModelProto`, an ONNX file
_FIELDS = 10_000  # most fields of the message that are read
_METADATA_BYTES = 1 << 20  # most bytes of all entries
_VARINT_BITS = 64


def read_metadata(path: Path) -> Mapping[str, str]:
    """Reads the metadata of an ONNX file. Raises `HeaderError`."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            entries = [dict(_fields(path, part)) for part in _entries(path, file, size)]
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return {one.get(1, b"").decode(): one.get(2, b"").decode() for one in entries}
    except UnicodeDecodeError as error:
        raise HeaderError(f"The metadata of {path} are broken: {error}.") from error


def metadata_number(
    path: Path, metadata: Mapping[str, str], key: str, greatest: int, *, least: int = 1
) -> int:
    """Returns the number of a key. Raises `HeaderError` unless it is `least` to `greatest`."""
    value = metadata.get(key, "")
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(greatest))
    if not is_number or not least <= int(value) <= greatest:
        raise HeaderError(f"{path} is broken: its `{key}` is {value[:50] or 'missing'}.")
    return int(value)


def _entries(path: Path, file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yields the entries of the metadata, and skips the rest of the file."""
    left_bytes, has_graph = _METADATA_BYTES, False
    for _ in range(_FIELDS):
        if file.tell() >= size and has_graph:
            return
        key = _varint(path, file)
        length = _varint(path, file)
        if key >> 3 == 0 or key & 7 not in (0, 2):
            break
        if key & 7 == 0:
            continue  # `length` was the value of a number
        if file.tell() + length > size:
            raise HeaderError(
                f"{path} is cut short: a part of it would end beyond its {size:,} bytes; "
                "copy or download it again."
            )
        has_graph = has_graph or key >> 3 == _GRAPH_FIELD
        if key >> 3 != _METADATA_FIELD:
            file.seek(length, 1)
            continue
        left_bytes -= length
        if left_bytes < 0:
            message = f"{path} is broken: its metadata have more than {_METADATA_BYTES} bytes."
            raise HeaderError(message)
        yield file.read(length)
    raise HeaderError(f"{path} is not an ONNX file.")


def _fields(path: Path, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the number and text of each field of an entry."""
    at = 0
    while at < len(data):
        key, at = _varint_in(path, data, at)
        length, at = _varint_in(path, data, at)
        if key & 7 != 2 or at + length > len(data):
            raise HeaderError(f"The metadata of {path} are broken.")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(path: Path, file: BinaryIO) -> int:
    data = bytearray()
    while not data or data[-1] & 128:
        byte = file.read(1)
        if not byte or 7 * len(data) >= _VARINT_BITS:
            raise HeaderError(f"{path} is not an ONNX file, or is cut short.")
        data += byte
    return _value(data)


def _varint_in(path: Path, data: bytes, at: int) -> tuple[int, int]:
    end = at
    while end < len(data) and data[end] & 128:
        end += 1
    if end >= len(data) or 7 * (end - at) >= _VARINT_BITS:
        raise HeaderError(f"The metadata of {path} are broken.")
    return _value(data[at : end + 1]), end + 1


def _value(data: bytes | bytearray) -> int:
    return sum((byte & 127) << 7 * at for at, byte in enumerate(data))
