"""Two servers at once, asked in turns: how much faster one is than the other on a machine whose
speed changes from minute to minute.

    python -m benchmarks.engine_pairs                       # beside llama-server, five minutes
    python -m benchmarks.engine_pairs --loads W16x5,MTx3 --model 135m-q4

The other server is idle meanwhile, so that the two halves of a pair are seconds apart,
where `engine_peers` has minutes between them. Both servers get the same chats. `engine_peers` also
measures the servers' memory. The figures can be drawn: `benchmarks.peers.plots`.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.peers import build
from benchmarks.peers.machine import family, spent_s, use
from benchmarks.peers.models import SHAPES, write_model
from benchmarks.peers.runs import measure
from benchmarks.peers.servers import SERVERS, Running, Setup, running

OURS = "llm-backend"
PAUSE_S = 0.3  # between two runs, for what the last one left behind
SHOWN = (
    *("tokens_s", "ttft_p50_ms", "ttft_p95_ms", "itl_p50_ms", "itl_p95_ms"),
    *("later_ttft_p50_ms", "arrival_ttft_ms", "failed", "processor_s", "others"),
)

Figures = dict[str, Any]


def main() -> None:
    """Measure what is asked for, show it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--loads", default="W1x9,W8x5,W16x5,MTx3,N15x3,S16x1", metavar="LOADxTIMES")
    parser.add_argument("--model", default=next(iter(SHAPES)), choices=SHAPES)
    parser.add_argument(
        "--peer", default="llama-server", choices=[one for one in SERVERS if one != OURS]
    )
    parser.add_argument("--out", type=Path, default=build.ROOT / "build" / "engine_pairs.json")
    options = parser.parse_args()

    setup = Setup(model=write_model(options.model, build.FOLDER / "models"))
    rows: list[Figures] = []
    with running(OURS, setup) as ours, running(options.peer, setup) as theirs:
        servers = {OURS: ours, options.peer: theirs}
        for server in servers.values():
            uvloop.run(measure("W2", server.port, "warm"))
        for load in options.loads.split(","):
            name, _, times = load.partition("x")
            found = _pairs(name, int(times or 1), servers)
            show(name, found)
            rows += [
                {
                    "server": server,
                    "workload": name,
                    "model": setup.model.stem,
                    "round": number,
                    **run,
                }
                for server, runs in found.items()
                for number, run in enumerate(runs)
            ]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(rows, indent=1))


def _pairs(load: str, times: int, servers: dict[str, Running]) -> dict[str, list[Figures]]:
    """The same requests for each server, one after the other, each time in the other order."""
    found: dict[str, list[Figures]] = {name: [] for name in servers}
    for number in range(times):
        for name in sorted(servers, reverse=bool(number % 2)):
            time.sleep(PAUSE_S)
            found[name].append(_measure(load, servers[name], f"{number}"))
    return found


def _measure(load: str, server: Running, seed: str) -> Figures:
    """One run, with the server's processor time and the share of the machine that others had."""
    members = family(server.pid)
    before, spent = use(*members), sum(map(spent_s, members))
    figures = uvloop.run(measure(load, server.port, seed))
    return figures | {
        "processor_s": round(sum(map(spent_s, members)) - spent, 2),
        "others": round(use(*members).others_since(before), 2),
    }


def show(load: str, found: dict[str, list[Figures]]) -> None:
    """Print the ratio of each pair, and medians of both servers."""
    ours, theirs = found.values()
    ratios = [
        one["tokens_s"] / other["tokens_s"] if other["tokens_s"] else math.inf  # all timed out
        for one, other in zip(ours, theirs, strict=True)
    ]
    shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"{load}: {statistics.median(ratios):.2f} of its tokens per second ({shown})", flush=True)
    for name, runs in found.items():
        medians = [
            f"{column} {statistics.median(values):.4g}"
            for column in SHOWN
            if (values := [run[column] for run in runs if run.get(column) is not None])
        ]
        print(f"  {name}: {', '.join(medians)}", flush=True)


if __name__ == "__main__":
    main()
