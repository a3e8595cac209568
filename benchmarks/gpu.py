"""The engine on a GPU beside llama-server: builds both with CUDA, serves, measures, and writes a
report.

    python -m benchmarks gpu                       # within an hour: kernels for this GPU alone
    python -m benchmarks.gpu --rows gpu-streams    # one of the rows

Without a GPU, or without the compiler of CUDA, it says so and measures nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "build" / "gpu-report.md"
ROWS = "gpu-streams,gpu-unified,gpu-shared,gpu-returning"
# of the GPUs of this machine only: kernels for all that are in use take several times as long
CUDA = "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native"
COLUMNS = {
    "tokens_s": "tokens/s",
    "ttft_p50_ms": "first token p50, ms",
    "ttft_p95_ms": "p95",
    "itl_p50_ms": "next token p50, ms",
    "itl_p95_ms": "p95",
    "later_ttft_p50_ms": "later turns p50, ms",
    "computed_ratio": "computed / least",
    "peak_mib": "host memory, MiB",
}


def main() -> int:
    """Build, measure each row, write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rows", default=ROWS)
    given = parser.parse_args()
    if missing := [name for name in ("nvidia-smi", "nvcc") if shutil.which(name) is None]:
        print(f"There is no GPU to measure, or no compiler for it: {', '.join(missing)} not found.")
        return 1
    flags = os.environ.get("CMAKE_ARGS", "")
    environment = {**os.environ, "CMAKE_ARGS": f"{flags} {CUDA}".strip()}
    for step in (
        ("benchmarks.peers.build", "--native"),  # no row has a server in Python
        ("benchmarks.engine_peers", "--rows", given.rows),
    ):
        done = subprocess.run([sys.executable, "-m", *step], env=environment, check=False)
        if done.returncode:
            return done.returncode
    figures = [
        figure
        for row in given.rows.split(",")
        for figure in json.loads((ROOT / "build" / f"engine_peers-{row}.json").read_text())
    ]
    REPORT.write_text(report(device(), figures), encoding="utf-8")
    print(f"The report is in {REPORT}.")
    return 0


def device() -> str:
    """Name, memory and driver of each GPU."""
    query = "--query-gpu=name,memory.total,driver_version"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def report(devices: str, figures: list[dict[str, Any]]) -> str:
    """Markdown: medians by load and server, and the ratio of tokens per second."""
    from benchmarks.engine_peers import OURS, median  # it needs what the build unpacks

    lines = ["# The engine on a GPU", "", devices.replace("\n", "  \n"), ""]
    lines += [f"| load | server | ours / theirs | {' | '.join(COLUMNS.values())} |"]
    lines += ["|---" * (len(COLUMNS) + 3) + "|"]
    for work in dict.fromkeys(row["workload"] for row in figures):
        ours = median(figures, OURS, work, "tokens_s")
        for server in dict.fromkeys(row["server"] for row in figures if row["workload"] == work):
            values = [median(figures, server, work, column) for column in COLUMNS]
            ratio = f"{ours / values[0]:.2f}" if ours and values[0] and server != OURS else ""
            cells = ["" if value is None else f"{value:.4g}" for value in values]
            lines.append(f"| {work} | {server} | {ratio} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
