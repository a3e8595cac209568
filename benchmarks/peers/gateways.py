"""The served gateway beside a bare pass-through, nginx and LiteLLM's proxy: one run, one upstream.

    python -m benchmarks.peers.gateways --seconds 5 --rounds 5
    python -m benchmarks.peers.gateways --only bare,ours --requests 200000

One worker each. Ours checks a key, holds every request against the document and stores every chat;
the others pass it on. Each is measured in turns within every round, so that a drifting machine
moves all of them; what each takes of the processors for a request depends least on what else the
machine does. nginx is used where it is installed (`apt-get install nginx-light`), LiteLLM
where `--litellm` names its command (`pip install 'litellm[proxy]'` in an environment of its own).
With `--requests`, so many JSON requests follow for each, and what it holds in memory is told.
"""

import argparse
import asyncio
import contextlib
import http.client
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.machine import family
from benchmarks.relay_throughput import (
    EVENTS,
    REQUEST,
    STREAMED,
    bare,
    listening,
    load,
    run_app,
    run_mock,
)

READY_S = 120
KEY = "client"  # what `load` sends

NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream far {{ server 127.0.0.1:{far}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{
      proxy_pass http://far; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
LITELLM = """
model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{far}/v1", api_key: key}}
litellm_settings: {{num_retries: 0, telemetry: false}}
general_settings: {{master_key: {key}}}
"""

Command = Callable[[int, int, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """One that answers: where, which process, and how long it took to be ready."""

    name: str
    port: int
    pid: int
    ready_s: float

    def processor_s(self) -> float:
        """Processor time of all its processes in seconds."""
        return sum(_ticks(pid) for pid in family(self.pid)) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        """Resident memory of all its processes in MiB."""
        return sum(_resident_kib(pid) for pid in family(self.pid)) / 1024


def ours(port: int, far: int, folder: Path) -> list[str]:
    """The served application, with key check, validation and storing on."""
    return [sys.executable, "-m", "llm_backend", "serve", "--port", str(port), "--model", "none",
            "--data-dir", str(folder)]  # fmt: skip


def nginx(port: int, far: int, folder: Path) -> list[str]:
    """A plain reverse proxy (nginx), without checks."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(port=port, far=far, folder=folder))
    return [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config), "-p", str(folder)]


def litellm(command: str) -> Command:
    """LiteLLM's proxy, without a database."""

    def command_line(port: int, far: int, folder: Path) -> list[str]:
        config = folder / "litellm.yaml"
        config.write_text(LITELLM.format(far=far, key=KEY))
        return [command, "--config", str(config), "--host", "127.0.0.1", "--port", str(port),
                "--num_workers", "1"]  # fmt: skip

    return command_line


@contextlib.contextmanager
def start_gateway(name: str, command: Command, far: int) -> Iterator[Gateway]:
    """A gateway in front of the upstream on port `far`, until the end of the block."""
    with listening() as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "LLM_BACKEND_API_KEYS": KEY,
        "OPENAI_API_KEY": "key",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{far}/v1",
        "LLM_BACKEND_LOG_LEVEL": "warning",
    }
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen(
            command(port, far, Path(folder)),
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_ready(port, process)
            ready_s = time.perf_counter() - began
            yield Gateway(name=name, port=port, pid=process.pid, ready_s=ready_s)
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def passing_through(far: int) -> Iterator[Gateway]:
    """Starlette and the same HTTP client, and nothing else."""
    listener = listening()
    arguments = (bare, f"http://127.0.0.1:{far}/v1", listener)
    process = multiprocessing.Process(target=run_app, args=arguments, daemon=True)
    began = time.perf_counter()
    process.start()
    try:
        _wait_ready(listener.getsockname()[1], None)
        assert process.pid is not None
        ready_s = time.perf_counter() - began
        yield Gateway(name="bare", port=listener.getsockname()[1], pid=process.pid, ready_s=ready_s)
    finally:
        process.terminate()
        process.join()
        listener.close()


def measure(
    gateways: list[Gateway], body: bytes, connections: int, seconds: float, rounds: int
) -> None:
    rates: dict[str, list[float]] = {one.name: [] for one in gateways}
    times: dict[str, list[float]] = {one.name: [] for one in gateways}
    costs: dict[str, list[float]] = {one.name: [] for one in gateways}
    for _ in range(rounds):
        for one in gateways:
            before_s = one.processor_s()
            took = asyncio.run(load(one.port, body, connections, seconds))
            costs[one.name].append((one.processor_s() - before_s) / len(took))
            rates[one.name].append(len(took) / seconds)
            times[one.name] += took
    kind = f"{EVENTS}-event streams" if body is STREAMED else "JSON"
    bare_p50 = statistics.median(times["bare"]) * 1e3 if "bare" in times else 0.0
    for one in gateways:
        cuts = [cut * 1e3 for cut in statistics.quantiles(times[one.name], n=100)]
        rate = statistics.median(rates[one.name])
        cost_us = statistics.median(costs[one.name]) * 1e6
        against = rate / statistics.median(rates["bare"]) if "bare" in rates else 0.0
        print(
            f"{kind:>17}  {connections:>2} connections  {one.name:<8} {rate:>7.0f} requests/s  "
            f"{against:5.2f} of bare  p50 {cuts[49]:6.2f} ms ({cuts[49] - bare_p50:+.2f})  "
            f"p99 {cuts[98]:6.2f} ms  {cost_us:6.0f} us of processor"
        )


def tell_memory(gateways: list[Gateway], requests: int) -> None:
    """Print each one's memory when idle, half-way and after so many requests on 16 connections."""
    for one in gateways:
        held, done = [one.resident_mib()], 0
        for until in (requests // 2, requests):
            while done < until:
                done += len(asyncio.run(load(one.port, REQUEST, 16, 2)))
            held.append(one.resident_mib())
        growth = 100 * (held[2] / held[1] - 1)
        print(
            f"{one.name:<8} ready in {one.ready_s:5.2f} s  resident {held[0]:.0f} MiB at first, "
            f"{held[1]:.0f} after {requests // 2}, {held[2]:.0f} after {requests} ({growth:+.1f} %)"
        )


def main() -> None:
    options = _options()
    commands: dict[str, Command] = {"ours": ours}
    if shutil.which("nginx") or Path("/usr/sbin/nginx").exists():
        commands["nginx"] = nginx
    if options.litellm:
        commands["litellm"] = litellm(options.litellm)
    wanted = options.only.split(",") if options.only else ["bare", *commands]
    if missing := set(wanted) - {"bare", *commands}:
        raise SystemExit(f"There is no {', '.join(sorted(missing))} on this machine.")
    far = listening()
    mock = multiprocessing.Process(target=run_mock, args=(far,), daemon=True)
    mock.start()
    port = far.getsockname()[1]
    try:
        with contextlib.ExitStack() as stack:
            gateways = [
                stack.enter_context(
                    passing_through(port)
                    if name == "bare"
                    else start_gateway(name, commands[name], port)
                )
                for name in wanted
            ]
            for body in (REQUEST, STREAMED):
                for connections in (1, 16):
                    measure(gateways, body, connections, options.seconds, options.rounds)
            tell_memory(gateways, options.requests)
    finally:
        mock.terminate()
        mock.join()
        far.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2, help="seconds per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turns")
    parser.add_argument("--requests", type=int, default=2000, help="requests between memory looks")
    parser.add_argument("--only", help="comma-separated: bare, ours, nginx, litellm")
    parser.add_argument("--litellm", help="LiteLLM's command, where it is to be measured")
    return parser.parse_args()


def _wait_ready(port: int, process: subprocess.Popen[bytes] | None) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        if process is not None and process.poll() is not None:
            raise SystemExit(f"It ended with {process.returncode} before it was ready.")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
            connection.request("POST", "/v1/chat/completions", REQUEST, headers)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise SystemExit("It did not become ready.")


def _ticks(pid: int) -> int:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])  # in user mode and in the kernel
    return 0


def _resident_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
