"""The servers side by side: how each is started with the same model, slots, context and threads."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import build
from benchmarks.peers.machine import family
from benchmarks.peers.models import write_model_folder
from llm_backend.operating_system import die_with_parent

__all__ = ["OPTIONAL", "SERVERS", "Running", "Setup", "answers", "free_port", "running"]

READY_S = 300


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings that all servers have in common. `context_tokens` is one sequence's."""

    model: Path
    slots: int = 16
    context_tokens: int = 2048
    threads: int = len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers: where, which process, and how long it took to be ready."""

    port: int
    pid: int
    ready_s: float

    def peak_mib(self) -> float:
        """Peak resident memory of its processes together."""
        return sum(_peak_kib(pid) for pid in family(self.pid)) / 1024


Command = Callable[[Setup, int, Path], list[str]]


def _ours(setup: Setup, port: int, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "llm_backend", "serve", "--model", str(setup.model)),
        *("--alias", "bench", "--slots", str(setup.slots), "--port", str(port)),
        *("--context-tokens", str(setup.context_tokens), "--data-dir", str(folder)),
    ]


def _ours_unified(setup: Setup, port: int, folder: Path) -> list[str]:
    return ["env", "LLM_BACKEND_KV_UNIFIED=true", *_ours(setup, port, folder)]


def _llama_server(setup: Setup, port: int, folder: Path) -> list[str]:
    return [
        *(str(build.LLAMA_SERVER), "-m", str(setup.model), "--port", str(port)),
        *("-np", str(setup.slots), "-c", str(setup.slots * setup.context_tokens)),
        *("--threads", str(setup.threads)),
    ]


def _llama_server_no_store(setup: Setup, port: int, folder: Path) -> list[str]:
    return [*_llama_server(setup, port, folder), "--cache-ram", "0"]


def _llama_server_speculating(setup: Setup, port: int, folder: Path) -> list[str]:
    return [*_llama_server(setup, port, folder), "--spec-default"]


def _packaged_command(setup: Setup, port: int, folder: Path) -> list[str]:
    # Its default cancels the running stream when another request comes: then most of them fail.
    return [
        *(str(build.PYTHON), "-m", "llama_cpp.server", "--model", str(setup.model)),
        *("--model_alias", "bench", "--port", str(port), "--flash_attn", "true"),
        *("--n_ctx", str(setup.context_tokens), "--interrupt_requests", "false"),
        *("--n_threads", str(setup.threads), "--n_threads_batch", str(setup.threads)),
    ]


def _example(setup: Setup, port: int, folder: Path) -> list[str]:
    model = {
        "path": str(setup.model),
        "alias": "bench",
        "n_ctx": setup.slots * setup.context_tokens,
        "n_seq_max": setup.slots,
        "n_batch": 512,
        "n_ubatch": 512,
        "threads": setup.threads,
        "threads_batch": setup.threads,
        "kv_unified": True,
        "flash_attn": True,
        "response_schema": {
            "type": "object",
            "properties": {
                "role": {"const": "assistant"},
                "content": {"type": "string", "x-regex": "^(.*)$"},
            },
        },
    }
    config = folder / "example-server.json"
    config.write_text(json.dumps({"server": {"port": port}, "model": model}))
    return [str(build.PYTHON), str(build.EXAMPLE_SERVER), "-C", str(config)]


def _openvino(setup: Setup, port: int, folder: Path) -> list[str]:
    return [
        *(str(build.OPENVINO_PYTHON), str(Path(__file__).with_name("openvino_server.py"))),
        *(str(setup.model), str(port), str(setup.slots), str(setup.context_tokens)),
    ]


def _vllm(setup: Setup, port: int, folder: Path) -> list[str]:
    cores = sorted(os.sched_getaffinity(0))[: setup.threads]
    environment = {  # its default leaves one core idle; the library of threads is what it advises
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "LD_PRELOAD": str(build.VLLM_PYTHON.parents[1] / "lib" / "libiomp5.so"),
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CACHE_ROOT": str(build.FOLDER / "vllm" / "cache"),  # of what it compiles
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return [
        *("env", *(f"{name}={value}" for name, value in environment.items())),
        *(str(build.VLLM_PYTHON), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(write_model_folder(setup.model.stem, folder / "bench"))),
        *("--served-model-name", "bench", "--host", "127.0.0.1", "--port", str(port)),
        *("--load-format", "dummy", "--dtype", "bfloat16", "--generation-config", "vllm"),
        *("--max-num-seqs", str(setup.slots), "--max-model-len", str(setup.context_tokens)),
        # a part of a prompt with a seed ends its engine: CPU generators have no offset
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", str(setup.context_tokens)),
    ]


SERVERS: dict[str, tuple[Command, Path]] = {
    "llm-backend": (_ours, build.NATIVE),
    "llm-backend kv_unified": (_ours_unified, build.NATIVE),
    "llama-server": (_llama_server, build.LLAMA_SERVER),
    "llama-server --cache-ram 0": (_llama_server_no_store, build.LLAMA_SERVER),
    "llama-server --spec-default": (_llama_server_speculating, build.LLAMA_SERVER),
    "llama_cpp.server": (_packaged_command, build.PYTHON),
    "example server": (_example, build.PYTHON),
    "openvino": (_openvino, build.OPENVINO_PYTHON),
    "vllm": (_vllm, build.VLLM_PYTHON),
}
"""By name: its command line, and the file without which it is not built."""

OPTIONAL = ("llm-backend kv_unified", "llama-server --spec-default", "openvino", "vllm")
"""Servers of rows of their own."""


@contextlib.contextmanager
def running(name: str, setup: Setup) -> Iterator[Running]:
    """The server with this name, fresh, until the block ends. All of them use the libraries that
    were built for the peers, where those are there.
    """
    command, _ = SERVERS[name]
    port = free_port()
    environment = dict(os.environ)
    environment.pop("OPENAI_API_KEY", None)
    environment["LLM_BACKEND_THREADS"] = str(setup.threads)
    if build.BATCHED_BENCH.exists():
        environment["LLAMA_CPP_LIB_PATH"] = str(build.NATIVE)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        log = (Path(folder) / "server.log").open("w+")
        started_at = time.perf_counter()
        process = subprocess.Popen(
            command(setup, port, Path(folder)),
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent,  # a benchmark may be killed
        )
        try:
            _wait(process, port, started_at, log.name)
            ready_s = time.perf_counter() - started_at
            yield Running(port=port, pid=process.pid, ready_s=ready_s)
        finally:
            _stop(process)
            log.close()


def _wait(process: "subprocess.Popen[bytes]", port: int, started_at: float, log: str) -> None:
    """Until a completion of one token is answered: the same meaning of ready for every server."""
    while not answers(port):
        if process.poll() is not None or time.perf_counter() - started_at > READY_S:
            raise SystemExit(f"The server did not start:\n{Path(log).read_text()[-2000:]}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """True if a chat of one token is answered on this port."""
    request = {
        "model": "bench",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(request), headers)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """A port without a listening process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _peak_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0])
