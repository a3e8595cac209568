"""From process start to the first answer, and what the process then holds resident.

The server is started as a user would start it, without a model and without an upstream, once on a
fresh data folder and then on the same one. Prints medians; the bounds it is held to are 1.0 s and
100 MB.
"""

import argparse
import http.client
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOUND_S, BOUND_MB = 1.0, 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--database", help="URL of a PostgreSQL database; SQLite if left out")
    options = parser.parse_args()
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", str(Path(__file__).parents[1] / "llm_backend")],
        check=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        url = options.database
        fresh = [start(Path(folder) / f"fresh{run}", url) for run in range(options.runs)]
        known = [start(Path(folder) / "fresh0", url) for _ in range(options.runs)]
    print("| data folder | first answer, s | bound | resident, MB | bound |")
    print("|---|---|---|---|---|")
    for name, runs in (("fresh", fresh), ("known", known)):
        seconds = statistics.median(seconds for seconds, _ in runs)
        size = statistics.median(size for _, size in runs)
        print(f"| {name} | {seconds:.2f} | {BOUND_S} | {size:.0f} | {BOUND_MB:.0f} |")


def start(data_dir: Path, database_url: str | None = None) -> tuple[float, float]:
    """Seconds from process start to a 200, and megabytes resident then."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_backend", "serve", "--model", "none", "--port", str(port),
         "--data-dir", str(data_dir)],
        stdout=subprocess.DEVNULL,
        env=environment(database_url),
    )  # fmt: skip
    try:
        while not answers(port):
            if process.poll() is not None:
                raise SystemExit("The server did not start.")
            time.sleep(0.005)
        return time.perf_counter() - began_s, resident_mb(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def environment(database_url: str | None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return own | ({"LLM_BACKEND_DATABASE_URL": database_url} if database_url else {})


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


if __name__ == "__main__":
    main()
