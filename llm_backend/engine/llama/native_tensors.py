"""Tensors of a computation of llama.cpp: their names, and their values while it computes."""

import ctypes

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

_GetText = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)
_CountBytes = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p)
_Copy = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)


class NativeTensors:
    """Functions of the library for a tensor, which is a pointer."""

    def __init__(self) -> None:
        library = native.llama_cpp._lib
        self.name = _GetText(("ggml_get_name", library))
        self.operation = _GetText(("ggml_op_desc", library))
        self.count_bytes = _CountBytes(("ggml_nbytes", library))
        self._read = _Copy(("ggml_backend_tensor_get", library))
        self._write = _Copy(("ggml_backend_tensor_set", library))

    def read(self, tensor: int, values: NDArray[np.generic], *, offset: int = 0) -> None:
        """Copies values of the tensor, from a byte on, into an array, which they fill."""
        self._read(tensor, values.ctypes.data, offset, values.nbytes)

    def read_rows(self, tensor: int, size: int) -> NDArray[np.float32]:
        """Returns the values of a tensor as rows of this size: [rows, size] float32."""
        values = np.empty((self.count_bytes(tensor) // (4 * size), size), dtype=np.float32)
        self.read(tensor, values)
        return values

    def write(self, tensor: int, values: NDArray[np.generic], *, offset: int = 0) -> None:
        """Copies an array over values of the tensor, from a byte on."""
        self._write(tensor, values.ctypes.data, offset, values.nbytes)
