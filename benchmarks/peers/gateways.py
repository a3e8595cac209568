"""The served gateway beside a bare pass-through, nginx and LiteLLM's proxy: one run, one upstream.

    python -m benchmarks.peers.gateways --seconds 5 --rounds 5
    python -m benchmarks.peers.gateways --only bare,ours --requests 200000

One worker each. Ours checks a key, holds every request against the document and stores every chat;
the others pass it on. Each is measured in turns within every round, so that a drifting machine
moves all of them; what each takes of the processors for a request depends least on what else the
machine does. nginx is used where it is installed (`apt-get install nginx-light`), LiteLLM
where `--litellm` names its command (`pip install 'litellm[proxy]'` in an environment of its own).
With `--requests`, so many JSON requests follow for each, and what it holds in memory is told.
With `--wrk` the client is wrk (`apt-get install wrk`), which takes little of the processors.
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

WRK = """
wrk.method, wrk.body = "POST", os.getenv("BODY")
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer {key}"
done = function(summary, latency)
  local failed = summary.errors
  print("figures", summary.requests, latency:percentile(50), latency:percentile(99),
        failed.connect + failed.read + failed.write + failed.status + failed.timeout)
end
"""

Command = Callable[[int, int, Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One measurement: the number of requests, and percentiles of their duration in seconds."""

    requests: int
    p50_s: float
    p99_s: float


Client = Callable[[int, bytes, int, float], Sample]
"""Loads a port with one body; further arguments are the connections and the seconds."""


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


def load_by_asyncio(port: int, body: bytes, connections: int, seconds: float) -> Sample:
    """The project's own client, which takes a large part of one core."""
    took = asyncio.run(load(port, body, connections, seconds))
    cuts = statistics.quantiles(took, n=100)
    return Sample(requests=len(took), p50_s=cuts[49], p99_s=cuts[98])


def load_by_wrk(port: int, body: bytes, connections: int, seconds: float) -> Sample:
    """`wrk` in one thread. Raises `SystemExit` if a request fails."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.format(key=KEY))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", script.name]
        command.append(f"http://127.0.0.1:{port}/v1/chat/completions")
        environment = {**os.environ, "BODY": body.decode()}
        printed = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout
    figures = next(line for line in printed.splitlines() if line.startswith("figures"))
    requests, p50_us, p99_us, failed = (float(figure) for figure in figures.split()[1:])
    if failed:
        raise SystemExit(f"{failed:.0f} requests of wrk failed:\n{printed}")
    return Sample(requests=int(requests), p50_s=p50_us / 1e6, p99_s=p99_us / 1e6)


def measure(
    gateways: list[Gateway], body: bytes, connections: int, options: argparse.Namespace
) -> None:
    client: Client = load_by_wrk if options.wrk else load_by_asyncio
    samples: dict[str, list[Sample]] = {one.name: [] for one in gateways}
    costs: dict[str, list[float]] = {one.name: [] for one in gateways}
    for _ in range(options.rounds):
        for one in gateways:
            before_s = one.processor_s()
            sample = client(one.port, body, connections, options.seconds)
            costs[one.name].append((one.processor_s() - before_s) / sample.requests)
            samples[one.name].append(sample)
    kind = f"{EVENTS}-event streams" if body is STREAMED else "JSON"
    medians = {name: _median(of, options.seconds) for name, of in samples.items()}
    bare = medians.get("bare")
    for name, (rate, p50_ms, p99_ms) in medians.items():
        beside = (
            f"{rate / bare[0]:5.2f} of bare's, {p99_ms / bare[2]:4.1f} times its p99, "
            if bare
            else ""
        )
        print(
            f"{kind:>17}  {connections:>2} connections  {name:<8} {rate:>7.0f} requests/s  "
            f"{beside}p50 {p50_ms:6.2f} ms  p99 {p99_ms:6.2f} ms  "
            f"{statistics.median(costs[name]) * 1e6:6.0f} us of processor"
        )


def _median(samples: list[Sample], seconds: float) -> tuple[float, float, float]:
    """Requests a second, and the two percentiles in ms: medians of the rounds."""
    rate = statistics.median(sample.requests for sample in samples) / seconds
    p50_s = statistics.median(sample.p50_s for sample in samples)
    return rate, p50_s * 1e3, statistics.median(sample.p99_s for sample in samples) * 1e3


def print_memory(gateways: list[Gateway], requests: int) -> None:
    """Print each one's memory when idle, half-way and after all `requests` on 16 connections."""
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
                    measure(gateways, body, connections, options)
            print_memory(gateways, options.requests)
    finally:
        mock.terminate()
        mock.join()
        far.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2, help="seconds per measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each, in turns")
    parser.add_argument("--requests", type=int, default=2000, help="requests between memory looks")
    parser.add_argument("--wrk", action="store_true", help="load by wrk instead of by this process")
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
