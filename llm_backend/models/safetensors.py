"""The safetensors format, read with numpy alone.

A file is eight bytes of little-endian header length, a JSON header that gives each tensor's
dtype, shape and place, and the raw little-endian data.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llm_backend.models.errors import ConversionError

__all__ = ["WEIGHTS_FILE", "StoredTensor", "open_tensors"]

WEIGHTS_FILE = "model.safetensors"

_LENGTH_BYTES = 8
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""The dtypes of weights; numpy has no bfloat16, whose bits are the upper half of a float32."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """One tensor of a mapped file; nothing is read before `load`."""

    shape: tuple[int, ...]
    dtype: str
    raw: npt.NDArray[np.uint8]

    def load(self) -> npt.NDArray[np.float32]:
        """The values as float32, a view of the mapped file where it holds just that."""
        stored = self.raw.view(_DTYPES[self.dtype]).reshape(self.shape)
        if self.dtype == "BF16":
            return (stored.astype("<u4") << 16).view("<f4")
        return stored.astype("<f4", copy=False)


def open_tensors(path: Path) -> Mapping[str, StoredTensor]:
    """The floating-point tensors of the file by name, mapped and not read.

    Raises ConversionError when the file is missing, cut off or not a safetensors file. Tensors of
    whole numbers, which are no weights, are left out.
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


def _parse_entry(
    body: npt.NDArray[np.uint8],
    entry: Mapping[str, Any],  # Any: JSON of the header
) -> StoredTensor:
    dtype, shape = entry["dtype"], tuple(int(size) for size in entry["shape"])
    begin, end = entry["data_offsets"]
    size_bytes = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if not (0 <= begin <= end <= body.size and end - begin == size_bytes):
        raise ValueError("a tensor outside of the file")
    return StoredTensor(shape=shape, dtype=dtype, raw=body[begin:end])
