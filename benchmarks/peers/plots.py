"""Draws docs/images/*.svg from the figures that `engine_peers` has written.

    python -m benchmarks.peers.plots build/engine_peers.json [MORE.json ...]

Needs matplotlib (`pip install -r requirements/bench.lock`). Colours and greys are legible on light
and on dark ground; bars are medians, whiskers the least and the largest of the rounds.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.peers.build import ROOT

Row = dict[str, Any]

FOLDER = ROOT / "docs" / "images"
MODEL = "135m-q8"
GREY = "#848d97"
COLOURS = {
    "llm-backend": "#2f81f7",
    "llama-server": "#e0812b",
    "llama-server --cache-ram 0": "#c9a227",
    "llama-server --spec-default": "#7a9a01",
    "openvino": "#0e8a8a",
    "example server": "#8957e5",
    "llama_cpp.server": "#d1477a",
    "limit": GREY,
}
SWEEP = [1, 2, 4, 8, 16, 32, 64]
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llm-backend",  # the same figures give the same file
    "font.family": "sans-serif",
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def main() -> None:
    """Draw what there are figures for."""
    rows = [row for name in sys.argv[1:] for row in json.loads(Path(name).read_text())]
    rows = [row for row in rows if row["model"] == MODEL]
    mpl.rcParams.update(STYLE)
    FOLDER.mkdir(parents=True, exist_ok=True)
    streams(rows)
    bars(rows, ["W1", "W8", "W16"], "ttft_p50_ms", "first-token", "first token, ms (median)")
    bars(rows, ["S16"], "tokens_s", "shared-throughput", "tokens/s")
    bars(rows, ["S16"], "ttft_p50_ms", "shared-first-token", "first token, ms (median)")
    bars(rows, ["W16"], "peak_mib", "memory", "peak resident memory, MiB")


def streams(rows: list[Row]) -> None:
    """Tokens per second against the number of streams."""
    _, axes = plt.subplots(figsize=(7, 4))
    for server in COLOURS:
        points = [(number, *_spread(rows, server, f"W{number}", "tokens_s")) for number in SWEEP]
        points = [point for point in points if point[1] is not None]
        if len(points) < 3:
            continue
        numbers, middles = [point[0] for point in points], [point[1] for point in points]
        dashed = {"linestyle": "--"} if server == "limit" else {"marker": "o"}
        name = "llama-batched-bench, the limit" if server == "limit" else server
        axes.plot(numbers, middles, color=COLOURS[server], label=name, **dashed)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SWEEP, [str(number) for number in SWEEP])
    axes.set_xlabel("streams at once")
    axes.set_ylabel("tokens/s, prompts included")
    axes.set_ylim(bottom=0)
    axes.legend()
    _save("throughput")


def bars(rows: list[Row], works: list[str], column: str, name: str, label: str) -> None:
    """A bar for each server, side by side for each workload."""
    servers = [
        server
        for server in COLOURS
        if any(_spread(rows, server, work, column)[0] for work in works)
    ]
    _, axes = plt.subplots(figsize=(7, 0.5 + 0.32 * len(servers) * len(works)))
    place, ticks = 0.0, []
    for work in works:
        for server in servers:
            middle, least, most = _spread(rows, server, work, column)
            if middle:
                _bar(axes, place, middle, (least, most), COLOURS[server])
            ticks.append((place, f"{work}  {server}" if len(works) > 1 else server))
            place -= 1
        place -= 0.5
    axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.set_xlabel(label)
    _save(name)


def _bar(axes: Axes, place: float, middle: float, ends: tuple[float, float], colour: str) -> None:
    axes.barh(place, middle, height=0.8, color=colour)
    axes.hlines(place, *ends, color=GREY, linewidth=1)
    axes.text(max(middle, ends[1]), place, f"  {middle:.0f}", va="center", fontsize=9)


def _spread(rows: list[Row], server: str, work: str, column: str) -> tuple[Any, Any, Any]:
    """Median, least and largest over the rounds; nothing where there is nothing."""
    values = [
        row[column]
        for row in rows
        if row["server"] == server and row["workload"] == work and row.get(column)
    ]
    return (statistics.median(values), min(values), max(values)) if values else (None, None, None)


def _save(name: str) -> None:
    plt.savefig(FOLDER / f"{name}.svg", transparent=True, metadata={"Date": None})
    plt.close()


if __name__ == "__main__":
    main()
