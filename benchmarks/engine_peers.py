"""The served engine beside its peers: the same model files, libraries, slots, context and threads,
fresh servers in turns, the same requests. Prints medians and ratios, writes all figures as JSON.

    python -m benchmarks.peers.build            # once: builds the peers, about six minutes
    python -m benchmarks engine_peers           # about a quarter of an hour on two cores
    python -m benchmarks.engine_peers --rows q4,sweep    # other rows of the table, one by one
    python -m benchmarks.engine_peers --help    # a part of it, or more models

Compare only within one run: machines drift by ten per cent within an hour, and llama-server's
speed depends on what it was asked before.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.peers import build
from benchmarks.peers.limits import limits
from benchmarks.peers.machine import family, use, wait_until_quiet
from benchmarks.peers.models import SHAPES, write_model
from benchmarks.peers.rows import ROWS
from benchmarks.peers.runs import measure
from benchmarks.peers.servers import OPTIONAL, SERVERS, Setup, running

Row = dict[str, Any]

OURS, LIMIT = "llm-backend", "limit"
MODELS_FOLDER = build.FOLDER / "models"
PAUSE_S = 0.5  # pause between two runs, in which the last one's work ends


def main() -> None:
    """Measure what is asked for, show it, keep it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended too
    if not build.VOCABULARIES.exists():
        print("The models need a vocabulary: build the peers first (benchmarks.peers.build).")
        return
    for row in _options("main").rows.split(","):
        _compare(_options(row))


def _compare(options: argparse.Namespace) -> None:
    """One row of the table."""
    servers = [name for name in options.servers.split(",") if _is_built(name)]
    rows: list[Row] = []
    for model in options.models.split(","):
        setup = Setup(
            model=write_model(model, MODELS_FOLDER),
            slots=options.slots,
            context_tokens=options.context_tokens,
        )
        for number in range(options.rounds):
            rows += _round(number, setup, servers, options)
            _write(options.out, rows)
        _show(model, [row for row in rows if row["model"] == model])
    print(f"All figures are in {options.out}.")


def _options(row: str) -> argparse.Namespace:
    """Options of the command line, with the row's own as defaults."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--models", default=next(iter(SHAPES)), help=", ".join(SHAPES))
    usual = [name for name in SERVERS if name not in OPTIONAL]
    parser.add_argument("--servers", default=",".join(usual))
    parser.add_argument("--workloads", default="W1,W8,W16,S16,MT,N15")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--context-tokens", type=int, default=2048)
    parser.add_argument("--no-limit", action="store_true", help="without llama-batched-bench")
    parser.add_argument(
        "--wait", type=float, default=0, help="seconds to wait for a quiet machine, each run"
    )
    name = "engine_peers" if row == "main" else f"engine_peers-{row}"
    parser.add_argument("--out", type=Path, default=build.ROOT / "build" / f"{name}.json")
    parser.add_argument("--rows", default="main", help=f"one or several: {', '.join(ROWS)}")
    if row not in ROWS:
        parser.error(f"there is no row {row}")
    parser.set_defaults(**ROWS[row])
    return parser.parse_args()


def _is_built(name: str) -> bool:
    if SERVERS[name][1].exists() or name == OURS:
        return True
    print(f"Without {name}, which is not built: run `python -m benchmarks.peers.build` first.")
    return False


def _round(number: int, setup: Setup, servers: list[str], options: argparse.Namespace) -> list[Row]:
    """Every server once, each time in another order."""
    rows: list[Row] = []
    workloads = options.workloads.split(",")
    first = number % len(servers) if servers else 0
    for name in servers[first:] + servers[:first]:
        rows += _serve(name, setup, workloads, number, options.wait)
    prompts = [row["prompt_tokens"] / row["requests"] for row in rows if row["workload"] == "W1"]
    if not options.no_limit and build.BATCHED_BENCH.exists():
        streams = [int(work[1:]) for work in workloads if work.startswith("W")]
        tokens = round(max(prompts, default=75))
        wait_until_quiet(options.wait)
        before = use()
        found = limits(setup, streams, tokens, shares="S16" in workloads)
        others = round(use().others_since(before), 2)
        rows += [
            {"server": LIMIT, "workload": work, "others": others, **figures}
            for work, figures in found.items()
            if work in workloads
        ]
    for row in rows:
        row |= {"model": setup.model.stem, "round": number, "load": round(os.getloadavg()[0], 1)}
    return rows


def _serve(name: str, setup: Setup, workloads: list[str], number: int, wait_s: float) -> list[Row]:
    """One fresh server through all workloads; `others` is the share that others had of the machine
    meanwhile."""
    rows: list[Row] = []
    with running(name, setup) as server:
        uvloop.run(measure("W2", server.port, "warm"))
        members = family(server.pid)
        for work in workloads:
            time.sleep(PAUSE_S)
            wait_until_quiet(wait_s)
            before = use(*members)
            figures = uvloop.run(measure(work, server.port, f"{number}"))
            others = round(use(*members).others_since(before), 2)
            rows.append({"server": name, "workload": work, "others": others, **figures})
            print(json.dumps(rows[-1]), flush=True)
        for row in rows:
            row |= {"peak_mib": round(server.peak_mib()), "ready_s": round(server.ready_s, 2)}
    return rows


def _write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))


SHOWN = {
    "tokens_s": "tokens/s",
    "prefill_tokens_s": "prefill/s",
    "ttft_p50_ms": "first p50",
    "ttft_p95_ms": "first p95",
    "wall_s": "seconds",
    "later_ttft_p50_ms": "later p50",
    "later_ttft_p95_ms": "later p95",
    "computed_ratio": "computed / least",
    "arrival_ttft_ms": "arrival",
    "itl_p50_ms": "next p50",
    "itl_p95_ms": "next p95",
    "failed": "failed",
    "peak_mib": "peak MiB",
    "others": "others",
}


def _show(model: str, rows: list[Row]) -> None:
    """Medians over the rounds, and the ratio of our tokens per second to each one's."""
    table = Table(title=f"{model}; milliseconds; ours / theirs in tokens per second")
    for column in ("load", "server", *SHOWN.values(), "ours /"):
        table.add_column(column, justify="left" if column in ("load", "server") else "right")
    for work in dict.fromkeys(row["workload"] for row in rows):
        ours = median(rows, OURS, work, "tokens_s")
        for server in dict.fromkeys(row["server"] for row in rows if row["workload"] == work):
            values = [median(rows, server, work, column) for column in SHOWN]
            theirs = values[0]
            ratio = ours / theirs if ours is not None and theirs else None
            cells = ["" if value is None else f"{value:.4g}" for value in values]
            table.add_row(work, server, *cells, "" if ratio is None else f"{ratio:.2f}")
    Console(width=170).print(table)


def median(rows: list[Row], server: str, workload: str, column: str) -> float | None:
    """The median of a column over the rounds; None if there is nothing."""
    values = [
        row[column]
        for row in rows
        if row["server"] == server and row["workload"] == workload and row.get(column) is not None
    ]
    return statistics.median(values) if values else None


if __name__ == "__main__":
    main()
