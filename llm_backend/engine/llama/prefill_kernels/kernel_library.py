"""Installation of the prefill kernels in the loaded llama.cpp."""

import ctypes
import functools
import logging
import platform
from enum import IntEnum
from pathlib import Path

import llama_cpp as native

from llm_backend.engine.llama.prefill_kernels.self_test import passes_self_test
from llm_backend.engine.messages import MissingKernels
from llm_backend.operating_system import is_linux

_log = logging.getLogger("llm_backend.engine.prefill_kernels")

LIBRARY = Path(__file__).with_name("libprefill.so")
"""The library that hatch_build.py compiles."""

_GGML_VERSION = b"0.25.3"  # the version whose structs ggml_layout.h declares
_CPU_DEVICE = 0  # GGML_BACKEND_DEVICE_TYPE_CPU
_FUNCTIONS = (  # in the order of `ggml_functions`
    "ggml_op_name",
    "ggml_get_type_traits",
    "ggml_graph_n_nodes",
    "ggml_graph_node",
    "ggml_backend_buffer_is_host",
    "ggml_backend_dev_name",
    "ggml_backend_dev_init",
    "ggml_backend_free",
    "ggml_backend_name",
)


class Instructions(IntEnum):
    """Instructions that the kernels use: each level includes those below it."""

    NONE = 0
    AVX2 = 1
    AVX512_VNNI = 2
    AVX512_BF16 = 3
    AMX = 4

    @property
    def title(self) -> str:
        """Name of the instructions for people, such as `AVX-512 VNNI`; empty for `NONE`."""
        return ("", "AVX2", "AVX-512 VNNI", "AVX-512 BF16", "AMX")[self]


class PrefillKernels:
    """The compiled library. A process has one hook, for all contexts that are opened after it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(LIBRARY))
        self._library.llm_backend_prefill_computed.restype = ctypes.c_long
        self._library.llm_backend_prefill_install.restype = ctypes.c_bool
        self._library.llm_backend_prefill_install.argtypes = (ctypes.c_void_p, ctypes.c_void_p)

    @property
    def supported(self) -> Instructions:
        """The highest instruction level that this processor and system support."""
        return Instructions(self._library.llm_backend_prefill_level())

    @functools.cached_property
    def is_installed(self) -> bool:
        """True if the hook is installed. The first access tries to install it."""
        library = native.llama_cpp._lib
        if _version() != _GGML_VERSION:
            _log.info("engine.prefill_kernels reason=version version=%s", _version())
            return False
        functions = [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in _FUNCTIONS]
        table = (ctypes.c_void_p * len(functions))(*(one.value for one in functions))
        find_device = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)
        device = find_device(("ggml_backend_dev_by_type", library))(_CPU_DEVICE)
        return bool(self._library.llm_backend_prefill_install(ctypes.addressof(table), device))

    def allow(self, instructions: Instructions) -> None:
        """Allows kernels up to this instruction level; `NONE` leaves all to ggml."""
        self._library.llm_backend_prefill_set_level(int(instructions))

    def count_operations(self) -> tuple[int, int]:
        """Returns the numbers of computed products and attention operations."""
        count = self._library.llm_backend_prefill_computed
        return count(0), count(1)


@functools.cache
def prefill_kernels() -> PrefillKernels | MissingKernels:
    """Returns the kernels, installed and tested, or the reason why they cannot be used."""
    if not (is_linux() and platform.machine() == "x86_64"):
        return MissingKernels.OTHER_SYSTEM
    if not LIBRARY.exists():
        _log.debug("engine.prefill_kernels reason=not_compiled")
        return MissingKernels.NOT_COMPILED
    kernels = PrefillKernels()
    if not kernels.supported:
        return MissingKernels.NO_INSTRUCTIONS
    if not kernels.is_installed:
        return MissingKernels.OTHER_VERSION
    if not passes_self_test(kernels.allow, list(Instructions)[1 : kernels.supported + 1]):
        _log.warning("engine.prefill_kernels reason=wrong_results")
        return MissingKernels.WRONG_RESULTS
    return kernels


def use_prefill_kernels(*, is_wanted: bool) -> Instructions | MissingKernels:
    """Uses the kernels in all contexts that this process opens from now on, or leaves passes to
    llama.cpp. Returns the instructions in use, or why the wanted kernels are not."""
    if not is_wanted and not prefill_kernels.cache_info().currsize:
        return Instructions.NONE
    kernels = prefill_kernels()
    if isinstance(kernels, MissingKernels):
        return kernels if is_wanted else Instructions.NONE
    level = kernels.supported if is_wanted else Instructions.NONE
    kernels.allow(level)
    return level


def _version() -> bytes:
    version = ctypes.CFUNCTYPE(ctypes.c_char_p)(("ggml_version", native.llama_cpp._lib))()
    return version or b""
