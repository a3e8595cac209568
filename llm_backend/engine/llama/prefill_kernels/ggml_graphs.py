"""Graphs of a single operation, computed by ggml's CPU backend: they test the prefill kernels."""

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar

import llama_cpp as native
import numpy as np
from numpy.typing import NDArray

_CONTEXT_BYTES = 1 << 20  # for the descriptions of tensors
_Pointer = ctypes.c_void_p
_Size = ctypes.c_int64


class _InitParams(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_: ClassVar = [
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    ]


class Graph:
    """Tensors and one operation on them. Shapes are numpy's: the last dimension is contiguous.
    The owner closes it."""

    def __init__(self) -> None:
        params = _InitParams(_CONTEXT_BYTES, None, True)
        self._context = _call("ggml_init", _Pointer, params)
        device = _call("ggml_backend_dev_by_type", _Pointer, 0)
        self._backend = _call("ggml_backend_dev_init", _Pointer, _Pointer(device), None)
        self._buffer: int | None = None
        self._inputs: list[tuple[int, NDArray[Any]]] = []

    def close(self) -> None:
        """Frees the tensors."""
        if self._buffer:
            _call("ggml_backend_buffer_free", None, _Pointer(self._buffer))
        _call("ggml_backend_free", None, _Pointer(self._backend))
        _call("ggml_free", None, _Pointer(self._context))

    def set_threads(self, count: int) -> None:
        """Sets the number of threads that compute."""
        _call("ggml_backend_cpu_set_n_threads", None, _Pointer(self._backend), count)

    def tensor(self, values: NDArray[np.float32], kind: int = native.GGML_TYPE_F32) -> int:
        """Adds a tensor of at most 4 dimensions, with these values converted to a type of ggml."""
        sizes = [_Size(one) for one in reversed((1,) * (4 - values.ndim) + values.shape)]
        made: int = _call(
            "ggml_new_tensor_4d", _Pointer, _Pointer(self._context), ctypes.c_int(kind), *sizes
        )
        self._inputs.append((made, convert_values(values, kind)))
        return made

    def product(self, weights: int, values: int) -> int:
        """Adds `ggml_mul_mat`: values @ weights.T."""
        made: int = _call(
            "ggml_mul_mat", _Pointer, *map(_Pointer, (self._context, weights, values))
        )
        return made

    def attention(
        self,
        tensors: tuple[int, int, int, int | None],
        *,
        scale: float,
        max_bias: float = 0,
        softcap: float = 0,
        sinks: int | None = None,
    ) -> int:
        """Adds `ggml_flash_attn_ext` of queries, keys, values and mask."""
        numbers = [ctypes.c_float(one) for one in (scale, max_bias, softcap)]
        made: int = _call(
            "ggml_flash_attn_ext",
            _Pointer,
            *(_Pointer(one) for one in (self._context, *tensors)),
            *numbers,
        )
        if sinks is not None:
            _call("ggml_flash_attn_ext_add_sinks", None, _Pointer(made), _Pointer(sinks))
        return made

    def compute(self, result: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Computes an operation and returns its values, [*shape] float32."""
        graph = _call("ggml_new_graph", _Pointer, _Pointer(self._context))
        _call("ggml_build_forward_expand", None, _Pointer(graph), _Pointer(result))
        if self._buffer is None:
            self._buffer = _call(
                "ggml_backend_alloc_ctx_tensors",
                _Pointer,
                *map(_Pointer, (self._context, self._backend)),
            )
        for tensor, values in self._inputs:
            _copy("ggml_backend_tensor_set", tensor, values)
        status = _call(
            "ggml_backend_graph_compute", ctypes.c_int, *map(_Pointer, (self._backend, graph))
        )
        assert status == 0, "GGML_STATUS_SUCCESS"
        values = np.empty(shape, dtype=np.float32)
        _copy("ggml_backend_tensor_get", result, values)
        return values


def convert_values(values: NDArray[np.float32], kind: int) -> NDArray[Any]:
    """Converts values to a type of ggml; a quantized type quantizes rows of the last dimension."""
    if kind == native.GGML_TYPE_F32:
        return np.ascontiguousarray(values, dtype=np.float32)
    if kind == native.GGML_TYPE_F16:
        return np.ascontiguousarray(values, dtype=np.float16)
    rows = np.ascontiguousarray(values, dtype=np.float32).reshape(-1, values.shape[-1])
    row_bytes = _call("ggml_row_size", ctypes.c_size_t, ctypes.c_int(kind), _Size(rows.shape[1]))
    result = np.empty(len(rows) * row_bytes, dtype=np.uint8)
    _call(
        "ggml_quantize_chunk",
        ctypes.c_size_t,
        ctypes.c_int(kind),
        _Pointer(rows.ctypes.data),
        _Pointer(result.ctypes.data),
        *map(_Size, (0, *rows.shape)),
        None,
    )
    return result


def _copy(function: str, tensor: int, values: NDArray[Any]) -> None:
    sizes = (ctypes.c_size_t(0), ctypes.c_size_t(values.nbytes))
    _call(function, None, _Pointer(tensor), _Pointer(values.ctypes.data), *sizes)


# Any: functions of the native code are untyped
def _call(name: str, result: Any, *arguments: Any) -> Any:
    function: Callable[..., Any] = getattr(native.llama_cpp._lib, name)
    function.restype = result  # type: ignore[attr-defined] # of a ctypes function
    return function(*arguments)
