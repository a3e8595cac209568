"""A file up and down through the served process: megabytes a second, and what it holds meanwhile.

Prints one row for a file at the default limit, sent as a form from a client in another process and
read back with its bytes counted. The bound is on what the server holds beyond what it held after a
small file.
"""

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serve_start import answers

BOUND_MB = 60.0
PIECE = os.urandom(1024 * 1024)
HEAD = (
    b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--b\r\n'
    b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=512)
    options = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_backend", "serve", "--model", "none", "--port", str(port),
             "--data-dir", folder, "--log-level", "error"],
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"},
        )  # fmt: skip
        try:
            while not answers(port):
                time.sleep(0.05)
            measure(port, process.pid, options.mib)
        finally:
            process.terminate()
            process.wait(30)


def measure(port: int, pid: int, mib: int) -> None:
    upload(port, 1)
    before_mb = largest_mb(pid)
    began_s = time.perf_counter()
    file_id = upload(port, mib)
    up_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    size = download(port, file_id)
    down_s = time.perf_counter() - began_s
    assert size == mib * len(PIECE)
    more_mb = largest_mb(pid) - before_mb
    print("| file, MiB | up, MiB/s | down, MiB/s | more resident, MB | bound |")
    print("|---|---|---|---|---|")
    print(f"| {mib} | {mib / up_s:.0f} | {mib / down_s:.0f} | {more_mb:.0f} | {BOUND_MB:.0f} |")


def upload(port: int, mib: int) -> str:
    def body() -> Iterator[bytes]:
        yield HEAD
        for _ in range(mib):
            yield PIECE
        yield b"\r\n--b--\r\n"

    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    connection.request("POST", "/v1/files", body(), headers, encode_chunked=True)
    answer = connection.getresponse()
    file = json.loads(answer.read())
    assert answer.status == 200, file
    return str(file["id"])


def download(port: int, file_id: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", f"/v1/files/{file_id}/content")
    answer, size = connection.getresponse(), 0
    while piece := answer.read(1024 * 1024):
        size += len(piece)
    return size


def largest_mb(pid: int) -> float:
    """The most that a process has held so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
