"""Compiles the contract and the draw of tokens into the wheel, and into the source tree of an
editable install."""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SAMPLING = Path("llm_backend") / "engine" / "sampling"


class Compile(BuildHookInterface):
    """Writes `llm_backend/contract/compiled/` from `openapi/`, and `libnucleus.so` beside its
    source, before files are collected. Without a C compiler numpy does that one's work."""

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
        if compile_nucleus(root / _SAMPLING):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"


def compile_nucleus(folder: Path) -> bool:
    """Compile `nucleus.c` with `CC`, or `cc`; whether that worked."""
    target, part = folder / "libnucleus.so", folder / f"libnucleus.so.{os.getpid()}"
    is_x86 = platform.machine() in {"x86_64", "AMD64"}
    flags = ["-O3", "-shared", "-fPIC", "-Wno-psabi", *(["-mavx2", "-mfma"] if is_x86 else [])]
    command = [*shlex.split(os.environ.get("CC", "cc")), *flags, str(folder / "nucleus.c")]
    target.unlink(missing_ok=True)
    try:
        subprocess.run([*command, "-o", str(part)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"nucleus.c was not compiled, so numpy draws tokens: {error}", file=sys.stderr)
        return False
    part.replace(target)  # whole or not at all: another process may be loading it
    return True


def _platform_tag() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":  # for a source tree that is used without being installed
    compile_nucleus(Path(__file__).parent / _SAMPLING)
