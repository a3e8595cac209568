"""Draws docs/images/scale-burst.svg: a burst, by the waits of clients.

Needs matplotlib (`pip install -r requirements/bench.lock`).
"""

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.peers.plots import FOLDER, GREY, STYLE
from benchmarks.scale.simulation import Burst, Outcome

__all__ = ["draw"]

COLOURS = ["#d1477a", "#2f81f7", "#3fb950", "#e0812b"]
WIDTH_S = 5.0


def draw(burst: Burst, outcomes: dict[str, Outcome]) -> None:
    """The longest wait of every few seconds, by what is done about the burst."""
    mpl.rcParams.update(STYLE)
    figure, axes = plt.subplots(figsize=(8, 3.6))
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.axvspan(burst.begins_s, burst.begins_s + burst.lasts_s, color=GREY, alpha=0.15, lw=0)
    axes.text(burst.begins_s + 2, 0.6, "burst", va="top", transform=axes.get_xaxis_transform())
    for colour, (name, outcome) in zip(COLOURS, outcomes.items(), strict=True):
        worst: dict[int, float] = {}
        for came, wait in outcome.waits:
            moment = int(came // WIDTH_S)
            worst[moment] = max(worst.get(moment, 0.0), wait)
        moments = sorted(worst)
        axes.plot(
            [moment * WIDTH_S for moment in moments],
            [worst[moment] for moment in moments],
            color=colour,
            label=name,
        )
    axes.set_xlabel("seconds")
    axes.set_ylabel("longest wait for a slot, s")
    axes.legend(loc="upper right")
    figure.savefig(FOLDER / "scale-burst.svg", metadata={"Date": None})
