"""Writes the tables of docs/scale.md between their marks, and its plot."""

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.scale.capacity import gigabytes_a_day, limits
from benchmarks.scale.figures import CHAT, CONVERSATION, MEASURED
from benchmarks.scale.simulation import Burst, Outcome, Policy, simulate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
SIZES = (1, 10, 1_000)
BURST = Burst(calm=0.5, times=4.0)
CALM = Burst(calm=0.8, times=1.0)
SEEDS = range(1, 9)
SERVERS = 10
POLICIES = {
    "any server": (SERVERS, Policy(balance="any")),
    "the one with the fewest": (SERVERS, Policy()),
    "the same, and an upstream for the rest": (SERVERS, Policy(falls_back=True, line=4)),
    "twice as many servers": (2 * SERVERS, Policy()),
}
ROUTES = {
    "any server": Policy(balance="any"),
    "the one with the fewest": Policy(),
    "the one with the prefix, unless it has 4 chats more": Policy(balance="prefix"),
}
LOADS = (0.2, 0.4)  # of what the servers bear without anything said before


def main() -> None:
    """Both tables, then the plot."""
    burst, calm = simulate_policies(BURST), simulate_policies(CALM)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(with_tables(page, burst, calm), encoding="utf-8")
    from benchmarks.scale.plots import draw  # what tests need of this module draws nothing

    draw(BURST, burst)


def simulate_policies(burst: Burst) -> dict[str, Outcome]:
    """Outcomes of the same chats under each policy, of several runs together."""
    return {
        name: together(
            simulate(
                MEASURED,
                CHAT,
                servers=servers,
                policy=policy,
                # the same chats for any number of servers
                burst=replace(burst, calm=burst.calm * SERVERS / servers),
                seed=seed,
            )
            for seed in SEEDS
        )
        for name, (servers, policy) in POLICIES.items()
    }


def together(runs: Iterable[Outcome]) -> Outcome:
    """Several outcomes as one."""
    whole = Outcome()
    for run in runs:
        whole.waits += run.waits
        whole.refused += run.refused
        whole.upstream += run.upstream
    return whole


def with_tables(page: str, burst: dict[str, Outcome], calm: dict[str, Outcome]) -> str:
    """The page with its tables as they are now."""
    tables = {
        "capacity": capacity_table(),
        "burst": burst_table(burst, calm),
        "conversations": conversations_table(),
    }
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = marks.sub(partial(_fill_in, table), page)
    return page


def _fill_in(table: str, marks: re.Match[str]) -> str:
    return marks[1] + table + marks[2]


def capacity_table() -> str:
    """Capacity by number of servers, and the first and second part that is full."""
    lines = [
        "| servers | chats/s | people talking | tokens/s | stored a day "
        "| first bottleneck | next bottleneck |",
        "|---|---|---|---|---|---|---|",
    ]
    for servers in SIZES:
        first, second = sorted(limits(MEASURED, CHAT, servers), key=lambda one: one.chats_s)[:2]
        bears = first.chats_s
        lines.append(
            f"| {servers:,} | {bears:,.1f} | {bears * CHAT.every_s:,.0f} "
            f"| {bears * CHAT.answer_tokens:,.0f} | {gigabytes_a_day(CHAT, bears):,.1f} GB "
            f"| {first.part} | {second.part}, at {second.chats_s:,.0f} chats/s |"
        )
    return "\n".join(lines) + "\n"


def burst_table(burst: dict[str, Outcome], calm: dict[str, Outcome]) -> str:
    """Outcome of each policy for the clients."""
    lines = [
        "| who gets a chat | no burst, 80 % full: wait for a slot p95 / longest, s "
        "| burst: p95 / longest, s | refused | to the upstream |",
        "|---|---|---|---|---|",
    ]
    for name, outcome in burst.items():
        lines.append(
            f"| {name} | {waits(calm[name])} | {waits(outcome)} "
            f"| {outcome.refused / outcome.chats:.1%} | {outcome.upstream / outcome.chats:.1%} |"
        )
    return "\n".join(lines) + "\n"


def conversations_table() -> str:
    """Waits and refusals of conversations by the choice of the server."""
    lines = [
        "| server of the next turn | load | computed again | wait p95 / longest, s | refused |",
        "|---|---|---|---|---|",
    ]
    for load in LOADS:
        for name, policy in ROUTES.items():
            outcome = simulate(
                MEASURED,
                CONVERSATION,
                servers=SERVERS,
                burst=Burst(calm=load, times=1.0),
                policy=policy,
            )
            lines.append(
                f"| {name} | {load:.0%} | {outcome.computed_tokens / outcome.context_tokens:.0%} "
                f"| {waits(outcome)} | {outcome.refused / outcome.chats:.1%} |"
            )
    return "\n".join(lines) + "\n"


def waits(outcome: Outcome) -> str:
    """The 95th percentile and the maximum of waits."""
    return f"{outcome.wait_s(0.95):.1f} / {outcome.wait_s(1.0):.1f}"


if __name__ == "__main__":
    main()
