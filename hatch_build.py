"""Compiles the contract, the draw of tokens and the prefill kernels into the wheel, and into the
source tree of an editable install."""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ENGINE = Path("llm_backend") / "engine"
_SAMPLING = _ENGINE / "sampling"
_KERNELS = _ENGINE / "llama" / "prefill_kernels"
_IS_X86 = platform.machine() in {"x86_64", "AMD64"}


class Compile(BuildHookInterface):
    """Writes `llm_backend/contract/compiled/` from `openapi/`, and `libnucleus.so` and
    `libprefill.so` beside their sources, before files are collected. Without a C compiler numpy and
    llama.cpp do their work."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        sys.path.insert(0, self.root)
        try:
            from llm_backend.contract.compilation.compiler import ContractError, compile_contract
            from llm_backend.contract.compilation.overlay import OverlayError
        finally:
            sys.path.remove(self.root)
        try:
            compile_contract(root / "openapi", root / "llm_backend" / "contract" / "compiled")
        except (ContractError, OverlayError) as error:
            sys.exit(f"openapi/ cannot be compiled (see openapi/README.md):\n{error}")
        compiled = [compile_nucleus(root / _SAMPLING), compile_kernels(root / _KERNELS)]
        if any(compiled):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"


def compile_nucleus(folder: Path) -> bool:
    """Compile `nucleus.c`; whether that worked."""
    flags = ["-mavx2", "-mfma"] if _IS_X86 else []
    return _compile([folder / "nucleus.c"], folder / "libnucleus.so", flags, "numpy draws tokens")


def compile_kernels(folder: Path) -> bool:
    """Compile the prefill kernels, which choose their instructions when they run; whether that
    worked. They are for Linux on x86."""
    if not (_IS_X86 and sys.platform == "linux"):
        return False
    sources = sorted(folder.glob("*.c"))
    return _compile(sources, folder / "libprefill.so", [], "llama.cpp's own kernels compute")


def _compile(sources: list[Path], target: Path, flags: list[str], substitute: str) -> bool:
    """Compile a shared library with `CC`, or `cc`; whether that worked."""
    part = target.with_name(f"{target.name}.{os.getpid()}")
    command = [*shlex.split(os.environ.get("CC", "cc")), "-O3", "-shared", "-fPIC", "-Wno-psabi"]
    target.unlink(missing_ok=True)
    try:
        subprocess.run([*command, *flags, *map(str, sources), "-o", str(part)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{target.name} was not compiled, so {substitute}: {error}", file=sys.stderr)
        return False
    part.replace(target)  # whole or not at all: another process may be loading it
    return True


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":  # for a source tree that is used without being installed
    compile_nucleus(Path(__file__).parent / _SAMPLING)
    compile_kernels(Path(__file__).parent / _KERNELS)
