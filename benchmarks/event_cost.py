"""Cost of a streamed token in the API process: its processor time per event, over a fake worker
that sends frames of deltas at a steady pace.

    python -m benchmarks.event_cost [--streams 1,16] [--tokens 300] [--repeat 3]

All the rest is real: the served application, HTTP, the checks, the store. What this process
computes it takes from the model's threads, so it is a part of the engine's speed.
"""

import argparse
import asyncio
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import uvloop
from msgspec.structs import replace

from benchmarks.peers.client import send_chat
from benchmarks.peers.servers import answers, free_port
from benchmarks.peers.workloads import body
from llm_backend.app import engine_configs
from llm_backend.engine.messages import (
    Cancel,
    Delta,
    FinishReason,
    Generate,
    LoadModel,
    ModelInfo,
    ModelKind,
    Probe,
    Ready,
    Shutdown,
    SlotAssigned,
    Status,
)
from llm_backend.engine.process.connection_server import ConnectionServer
from llm_backend.server import serve
from llm_backend.settings import load_settings

PACE_S = 0.02  # between two tokens of a stream, about a small model's
INFO = ModelInfo(
    architecture="llama",
    name="stand-in",
    description="",
    parameters=1,
    size_bytes=1,
    vocabulary_size=1000,
    embedding_size=8,
    trained_context_tokens=4096,
    context_tokens=4096,
    slots=64,
    chat_template=None,
    tool_template=None,
    bos_token="",
    eos_token="",
    control_tokens=[],
    kind=ModelKind.CHAT,
    can_infill=False,
    extra_buffers=True,
)


def main() -> None:
    """Measure; or be one of the two processes that are needed for it."""
    if sys.argv[1:2] == ["--serve"]:
        run_server(int(sys.argv[2]), Path(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--stand-in"]:
        StandIn(int(sys.argv[2])).run()
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    streams = [int(number) for number in options.streams.split(",")]
    measure(streams, options.tokens, options.repeat)


def measure(streams: list[int], tokens: int, repeat: int) -> None:
    """Print the table: the least of all runs, as others on the machine only add to it, and the
    median."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.event_cost", "--serve", str(port), folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not answers(port):
                assert process.poll() is None, "the server did not start"
                time.sleep(0.05)
            uvloop.run(talk(port, 4, 50))  # warms up: what is done only once is done now
            print("| streams | events | least, microseconds of processor time an event | median |")
            print("|---|---|---|---|")
            for number in streams:
                runs = [run(process.pid, port, number, tokens) for _ in range(repeat)]
                events, each = runs[0][0], [each for _, each in runs]
                median = statistics.median(each)
                print(f"| {number} | {events} | {min(each):.0f} | {median:.0f} |", flush=True)
        finally:
            process.terminate()
            process.wait(30)


def run(pid: int, port: int, streams: int, tokens: int) -> tuple[int, float]:
    """Number of events of one run, and microseconds of processor time for each."""
    before_s = computed_s(pid)
    events = uvloop.run(talk(port, streams, tokens))
    return events, (computed_s(pid) - before_s) / events * 1e6


def computed_s(pid: int) -> float:
    """Processor time of all threads of a process, to the nanosecond (Linux)."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


async def talk(port: int, streams: int, tokens: int) -> int:
    """Run `streams` concurrent chats; return the number of events with text."""
    hello = [{"role": "user", "content": "hello"}]
    seen = await asyncio.gather(
        *(send_chat(port, body(hello, tokens, Random(0))) for _ in range(streams))
    )
    assert not any(one.error for one in seen), seen[0].error
    return sum(len(one.arrivals) for one in seen)


def run_server(port: int, folder: Path) -> None:
    """The server with the stand-in for its engine process, over a file that only looks right."""
    model = folder / "bench.gguf"
    model.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))  # version, no tensors, no metadata
    command = (sys.executable, "-m", "benchmarks.event_cost", "--stand-in")
    configured = engine_configs.build_engine_config
    # the command of the engine process is no setting, on purpose: it is replaced here
    engine_configs.build_engine_config = lambda *given: replace(configured(*given), command=command)
    given = {"models": [str(model)], "port": port, "data_dir": str(folder)}
    serve(load_settings(given, None), print)


class StandIn:
    """Answers as an engine process does: each stream gets one token every `PACE_S` seconds."""

    def __init__(self, descriptor: int) -> None:
        self._hub = ConnectionServer()
        self._owner = self._hub.add(socket.socket(fileno=descriptor))
        self._hub.outbox_bytes = 1 << 26
        self._streams: dict[str, tuple[int, int]] = {}  # tokens made, and wanted
        self._beat_at = 0.0
        self._is_over = False

    def run(self) -> None:
        """Until the owner says so, or is gone."""
        while not self._is_over:
            rest_s = max(0.0, self._beat_at - time.perf_counter()) if self._streams else None
            for received in self._hub.poll(rest_s):
                self._take(received.command)
            if self._streams and time.perf_counter() >= self._beat_at:
                self._beat_at = max(self._beat_at + PACE_S, time.perf_counter())
                self._hub.send(self._owner, [self._delta(name) for name in list(self._streams)])

    def _take(self, command: object) -> None:
        match command:
            case LoadModel():
                self._hub.send(self._owner, [Ready(info=INFO, pid=os.getpid())])
            case Generate():
                self._hub.send(self._owner, [SlotAssigned(id=command.id, prompt_tokens=10)])
                if not self._streams:
                    self._beat_at = time.perf_counter() + PACE_S
                self._streams[command.id] = (0, command.max_tokens or 1)
            case Cancel():
                self._streams.pop(command.id, None)
            case Probe():
                self._hub.send(self._owner, [idle(command.id)])
            case Shutdown() | None:
                self._is_over = True

    def _delta(self, name: str) -> Delta:
        made, wanted = self._streams[name]
        made += 1
        self._streams[name] = made, wanted
        if made == wanted:
            del self._streams[name]
        reason = FinishReason.LENGTH if made == wanted else None
        return Delta(id=name, index=0, text=" word", completion_tokens=made, finish_reason=reason)


def idle(name: str) -> Status:
    """The answer to a probe."""
    return Status(
        id=name,
        running=0,
        waiting=0,
        cell_tokens=0,
        passes=0,
        sequences=0,
        computed_tokens=0,
        busy_s=0.0,
        admitted_tokens=0,
        cached_tokens=0,
        generated_tokens=0,
        media_tokens=0,
        media_s=0.0,
    )


if __name__ == "__main__":
    main()
