"""Devices of the native code and their memory; finds the GPUs that compute models."""

import ctypes
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import llama_cpp as native

from llm_backend.engine.messages import LoadModel
from llm_backend.model_files import Device

_CPU, _GPU, _INTEGRATED = 0, 1, 2  # GGML_BACKEND_DEVICE_TYPE_*


class DeviceLibrary(Protocol):
    """The devices of the native code, by number; tests replace it."""

    def __len__(self) -> int: ...
    def kind(self, number: int) -> int: ...
    def identity(self, number: int) -> str: ...
    def device(self, number: int) -> Device: ...


class NativeDevices:
    """The devices of the loaded library."""

    def __init__(self) -> None:
        native.llama_backend_init()

    def __len__(self) -> int:
        return int(_function("ggml_backend_dev_count", ctypes.c_size_t)())

    def kind(self, number: int) -> int:
        """Returns the type: `GGML_BACKEND_DEVICE_TYPE_*`."""
        return int(_function("ggml_backend_dev_type", ctypes.c_int)(_handle(number)))

    def identity(self, number: int) -> str:
        """Returns the bus address, the same if two backends list a GPU; else the name."""
        props = _Props()
        _function("ggml_backend_dev_get_props", None)(_handle(number), ctypes.byref(props))
        return (props.device_id or props.name or b"").decode(errors="replace")

    def device(self, number: int) -> Device:
        """Returns the name and memory."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        _function("ggml_backend_dev_memory", None)(
            _handle(number), ctypes.byref(free), ctypes.byref(total)
        )
        return Device(
            name=_text("ggml_backend_dev_name", number),
            description=_text("ggml_backend_dev_description", number),
            total_bytes=total.value,
            free_bytes=free.value,
            shares_host=self.kind(number) == _INTEGRATED,
        )


class _Props(ctypes.Structure):
    """`ggml_backend_dev_props`, with spare bytes in case its last member grows."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("free", ctypes.c_size_t),
        ("total", ctypes.c_size_t),
        ("kind", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_byte * 64),
    ]


def gpus(library: DeviceLibrary) -> list[Device]:
    """Returns the GPUs on which llama.cpp puts layers, in its order. Each GPU is listed once;
    integrated GPUs are used only if there is no other."""
    numbers = range(len(library))
    found: dict[str, int] = {}
    for number in numbers:
        if library.kind(number) == _GPU:
            found.setdefault(library.identity(number), number)
    integrated = [number for number in numbers if library.kind(number) == _INTEGRATED]
    return [library.device(number) for number in found.values() or integrated]


def supports_gpus() -> bool:
    """True if the build of the native code computes on GPUs."""
    return bool(native.llama_supports_gpu_offload())


def computes_on_gpu(config: LoadModel) -> bool:
    """True if a model with this configuration, or its projector, computes on GPUs."""
    return config.gpu_layers != 0 and supports_gpus()


def describe_devices(*, on_gpu: bool, library: DeviceLibrary | None = None) -> str:
    """Returns the devices that compute, as `CUDA0 (NVIDIA H200)`."""
    library = library or NativeDevices()
    devices = gpus(library) if on_gpu else []
    if not devices:
        numbers = range(len(library))
        devices = [library.device(one) for one in numbers if library.kind(one) == _CPU]
    return ", ".join(f"{one.name} ({one.description.strip()})" for one in devices)


def _text(function: str, number: int) -> str:
    text = _function(function, ctypes.c_char_p)(_handle(number)) or b""
    return str(text.decode(errors="replace"))


def _handle(number: int) -> ctypes.c_void_p:
    get = _function("ggml_backend_dev_get", ctypes.c_void_p)
    return ctypes.c_void_p(get(ctypes.c_size_t(number)))


# Any: functions of the bindings are untyped
def _function(name: str, result: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(native.llama_cpp._lib, name)
    function.restype = result  # type: ignore[attr-defined] # of a ctypes function
    return function
