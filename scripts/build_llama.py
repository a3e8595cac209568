"""Builds the llama-cpp-python wheel for this machine's processor, once, and prints its path.

The default build lets the compiler take whatever the processor offers; on processors with AMX that
makes a library that dies at its first quantized matrix product. So the instruction sets are chosen
here, one by one, and AMX is never among them. Wheels are kept under the user's cache folder by
version and flags, so that a second checkout builds nothing. Without one there, a wheel that
`make release` has put into dist/ is taken if it runs here.

    python scripts/build_llama.py [--wheel-dir DIR] [--portable] [--flags]

Runs before anything is installed: standard library only. `CMAKE_ARGS` in the environment is added
(for CUDA and the like).
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "llama.lock"

# CMake option -> the names in /proc/cpuinfo that a processor must show, all of them
INSTRUCTION_SETS = {
    "GGML_SSE42": {"sse4_2"},
    "GGML_AVX": {"avx"},
    "GGML_AVX2": {"avx2"},
    "GGML_FMA": {"fma"},
    "GGML_F16C": {"f16c"},
    "GGML_BMI2": {"bmi2"},
    "GGML_AVX512": {"avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"},
    "GGML_AVX512_VBMI": {"avx512_vbmi", "avx512vbmi"},
    "GGML_AVX512_VNNI": {"avx512_vnni"},
    "GGML_AVX512_BF16": {"avx512_bf16"},
    "GGML_AVX_VNNI": {"avx_vnni"},
}
ALTERNATIVE_NAMES = {"GGML_AVX512_VBMI"}  # any one of its names will do: kernels spell it both ways
PORTABLE = {"GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2"}
PROGRESS = re.compile(r"\[(\d+)/(\d+)\]")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel-dir", type=Path, help="put the wheel here, not in the cache")
    parser.add_argument("--portable", action="store_true", help="for any x86-64-v3 processor")
    parser.add_argument("--flags", action="store_true", help="print the CMake flags and stop")
    options = parser.parse_args()

    flags = cmake_flags(portable=options.portable)
    if options.flags:
        print(" ".join(flags))
        return 0
    folder = options.wheel_dir or cache_folder(flags)
    if options.wheel_dir is None and not folder.exists() and (wheel := release_wheel(flags)):
        say(f"Taking {wheel}, built for any processor; without it llama.cpp is built for this one.")
        print(wheel)
        return 0
    if not (wheels := sorted(folder.glob("llama_cpp_python-*.whl"))):
        if reason := missing_tool():
            say(f"llm-backend: {reason}")
            return 1
        folder.mkdir(parents=True, exist_ok=True)
        if not build(flags, folder):
            return 1
        wheels = sorted(folder.glob("llama_cpp_python-*.whl"))
    print(wheels[-1])
    return 0


def cmake_flags(*, portable: bool) -> list[str]:
    """The CMake flags for this processor, or for any x86-64-v3 one."""
    extra = os.environ.get("CMAKE_ARGS", "").split()
    if platform.machine() not in {"x86_64", "AMD64"} or not Path("/proc/cpuinfo").exists():
        return extra  # on other processors the compiler's own choice is safe
    has = PORTABLE if portable else instruction_sets(Path("/proc/cpuinfo").read_text())
    chosen = [f"-D{name}={'ON' if name in has else 'OFF'}" for name in INSTRUCTION_SETS]
    return ["-DGGML_NATIVE=OFF", *chosen, *extra]


def instruction_sets(cpuinfo: str) -> set[str]:
    """The CMake options that this processor, as the kernel describes it, can carry out."""
    match = re.search(r"^flags\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    shown = set(match.group(1).split()) if match else set()
    return {
        name
        for name, needed in INSTRUCTION_SETS.items()
        if (needed & shown if name in ALTERNATIVE_NAMES else needed <= shown)
    }


def cache_folder(flags: list[str]) -> Path:
    """Returns the folder of cached wheels of this version and these flags."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256((LOCK.read_text() + " ".join(flags)).encode()).hexdigest()[:16]
    return base / "llm-backend" / "wheels" / key


def release_wheel(flags: list[str], dist: Path = ROOT / "dist") -> Path | None:
    """Returns a release's wheel in dist/ that runs here; None if there is none."""
    portable = cmake_flags(portable=True)
    is_able = all(flag in flags for flag in portable if flag.endswith("=ON"))
    version = re.match(r"llama-cpp-python==(\S+)", LOCK.read_text())
    if version is None or not portable or not is_able or os.environ.get("CMAKE_ARGS"):
        return None
    name = f"llama_cpp_python-{version[1]}-*manylinux_*_{platform.machine()}.whl"
    for wheel in sorted(dist.glob(name)):
        policies = re.findall(r"manylinux_(\d+)_(\d+)_", wheel.name)
        if any((int(major), int(minor)) <= c_library_version() for major, minor in policies):
            return wheel
    return None


def c_library_version() -> tuple[int, ...]:
    """Returns the version of glibc; nothing for another library."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split(".")[:2])) if name == "glibc" else ()


def missing_tool() -> str | None:
    """Returns a sentence that names a missing build tool; None if there is none."""
    if shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++"):
        return None
    return (
        "no C++ compiler was found, and llama.cpp has to be built once. "
        "Install one (Debian, Ubuntu: `sudo apt-get install g++`) and run the command again."
    )


def build(flags: list[str], folder: Path) -> bool:
    """Builds the wheel into `folder`, drawing a progress bar; says why when it fails."""
    command = [sys.executable, "-m", "pip", "wheel", "--verbose", "--no-deps", "--no-cache-dir",
               "--no-build-isolation", "--require-hashes", "--wheel-dir", str(folder),
               "-r", str(LOCK)]  # fmt: skip
    environment = {
        **os.environ,
        "CMAKE_ARGS": " ".join(flags),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
    }
    say("Building llama.cpp, once (several minutes on two cores).")
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        tail: list[str] = []
        for line in process.stdout:
            tail = [*tail[-39:], line]
            draw(line)
    say("")
    if process.returncode:
        say("".join(tail))
        say("llm-backend: llama.cpp did not build; the compiler's last words are above.")
    return process.returncode == 0


def draw(line: str) -> None:
    """Redraws the bar if the line is one of ninja's `[done/all]`."""
    if step := PROGRESS.search(line):
        draw_bar(int(step[1]), int(step[2]))


def draw_bar(done: int, total: int, at: str = "") -> None:
    """Redraws the bar on a terminal; elsewhere prints a line for each fifth that is done."""
    if sys.stderr.isatty():
        bar = "#" * (40 * done // total)
        line = f"\r  [{bar:<40}] {done}/{total} {at:.30}\033[K"
        print(line, end="", file=sys.stderr, flush=True)
    elif 5 * done // total > 5 * (done - 1) // total:
        say(f"  {done}/{total}")


def say(line: str) -> None:
    """To the person, beside the path that standard output carries."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
