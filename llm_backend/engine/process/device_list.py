"""GPUs of this machine, listed by a process of its own: a GPU driver keeps memory in every process
that queries it, and only workers load llama.cpp.

A build without a backend for GPUs, as its libraries show, starts no such process.
"""

import importlib.util
import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from llm_backend.model_files import Device

_log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0  # drivers of many GPUs take seconds to begin
_PROCESSOR_PARTS = ("base", "cpu")  # parts of `libggml-*`; any other part is a backend of a device


def find_devices() -> tuple[Device, ...]:
    """Lists the GPUs that llama.cpp would use, with their free memory. Blocks for seconds where
    the build has a backend for them."""
    if not _has_gpu_backend():
        return ()
    command = [sys.executable, "-m", "llm_backend.engine.process.device_list"]
    try:
        found = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=True)
        return tuple(Device(**one) for one in json.loads(found.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        _log.warning("devices_unknown", extra={"reason": str(error)})
        return ()


def _has_gpu_backend() -> bool:
    """True unless the libraries of the native code are known to have none."""
    if os.environ.get("LLAMA_CPP_LIB_PATH"):  # noqa: TID251 # the binding's, not a setting
        return True
    spec = importlib.util.find_spec("llama_cpp")
    folders = spec.submodule_search_locations if spec else None
    names = [file.name for folder in folders or () for file in Path(folder, "lib").glob("*ggml-*")]
    parts = {name.partition("ggml-")[2].partition(".")[0] for name in names}
    return not parts or any(not part.startswith(_PROCESSOR_PARTS) for part in parts)


def _print_devices() -> None:
    from llm_backend.engine.llama.devices import NativeDevices, gpus

    json.dump([asdict(one) for one in gpus(NativeDevices())], sys.stdout)


if __name__ == "__main__":
    _print_devices()
