"""ONNX files made of bytes, as the package `onnx` is large."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOAT", "INT32", "INT64", "integer", "integers", "model", "node", "tensor", "value"]

FLOAT, INT32, INT64 = 1, 6, 7  # element types
_CONSTANT_TYPES = {"float16": 10, "float32": FLOAT, "int64": INT64}


def model(
    nodes: Sequence[bytes],
    constants: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    metadata: Mapping[str, str],
) -> bytes:
    """Returns a file."""
    graph = b"".join(
        (
            *(_field(1, one) for one in nodes),
            _field(2, "graph"),
            *(_field(5, one) for one in constants),
            *(_field(11, one) for one in inputs),
            *(_field(12, one) for one in outputs),
        )
    )
    return b"".join(
        (
            _field(1, 8),  # version of the format
            _field(7, graph),
            _field(8, _field(2, 17)),  # version of the operators
            *(_field(14, _field(1, key) + _field(2, text)) for key, text in metadata.items()),
        )
    )


def node(kind: str, inputs: Sequence[str], output: str, *attributes: bytes) -> bytes:
    """Returns an operation."""
    names = b"".join(_field(1, one) for one in inputs)
    more = b"".join(_field(5, one) for one in attributes)
    return names + _field(2, output) + _field(3, output) + _field(4, kind) + more


def integer(name: str, number: int) -> bytes:
    """Returns an attribute of a node."""
    return _field(1, name) + _field(3, number & 2**64 - 1) + _field(20, 2)


def integers(name: str, numbers: Sequence[int]) -> bytes:
    """Returns an attribute of a node that is a list."""
    return _field(1, name) + b"".join(_field(8, one) for one in numbers) + _field(20, 7)


def tensor(name: str, values: NDArray[np.generic]) -> bytes:
    """Returns a constant."""
    kind = _CONSTANT_TYPES[values.dtype.name]
    shape = b"".join(_field(1, size) for size in values.shape)
    return shape + _field(2, kind) + _field(8, name) + _field(9, values.tobytes())


def value(name: str, kind: int, dimensions: int, last: int | None = None) -> bytes:
    """Returns an input or an output of sizes that are not fixed, but for the `last` one."""
    names = [_field(2, f"{name}_{at}") for at in range(dimensions)]
    if last is not None:
        names[-1] = _field(1, last)
    sizes = b"".join(_field(1, one) for one in names)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sizes)))


def _field(number: int, content: int | str | bytes) -> bytes:
    """Returns a field of Protocol Buffers."""
    if isinstance(content, int):
        return _varint(number << 3) + _varint(content)
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes(data) + struct.pack("B", number)
