"""Safetensors reader, with numpy alone.

A file is eight bytes of little-endian header length, a JSON header with each tensor's dtype, shape
and offsets, and the raw little-endian data.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llm_backend.json_types import JsonMapping
from llm_backend.model_import.errors import ConversionError

WEIGHTS_FILE = "model.safetensors"

_LENGTH_BYTES = 8
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Dtypes of weights; numpy has no bfloat16, whose bits are the upper half of a float32."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of a memory-mapped file, which `load` reads."""

    shape: tuple[int, ...]
    dtype: str
    raw: npt.NDArray[np.uint8]

    def load(self) -> npt.NDArray[np.float32]:
        """Returns the values as float32; for F32 without a copy, as a view of the mapped file."""
        stored = self.raw.view(_DTYPES[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (stored.astype("<u4") << 16).view("<f4")
        return stored.astype("<f4", copy=False)


def open_tensors(path: Path) -> Mapping[str, StoredTensor]:
    """Maps the floating-point tensors of the file by name, without reading them.

    Raises `ConversionError` if the file is missing, truncated or not a safetensors file. Integer
    tensors, which are not weights, are left out.
    """
    if not path.is_file():
        raise ConversionError(f"{path} does not exist; only safetensors weights can be converted.")
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        start = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES].tobytes(), "little")
        header = json.loads(data[_LENGTH_BYTES:start].tobytes())
        body = data[start:]
        return {
            name: _parse_entry(body, entry)
            for name, entry in header.items()
            if name != "__metadata__" and entry["dtype"] in _DTYPES
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConversionError(f"{path} is not a whole safetensors file.") from error


def _parse_entry(body: npt.NDArray[np.uint8], entry: JsonMapping) -> StoredTensor:
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    begin, end = entry["data_offsets"]
    size_bytes = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if not (0 <= begin <= end <= body.size and end - begin == size_bytes):
        raise ValueError("a tensor outside of the file")
    return StoredTensor(shape=shape, dtype=dtype, raw=body[begin:end])
