"""Simulation of docs/scale.md: capacities, bursts and the generated tables."""

from dataclasses import replace

import pytest

from benchmarks.scale.__main__ import BURST, CALM, PAGE, simulate_policies, with_tables
from benchmarks.scale.capacity import limits, speed
from benchmarks.scale.figures import CHAT, MEASURED
from benchmarks.scale.simulation import Burst, Policy, simulate

SHORT = Burst(begins_s=20, lasts_s=20, ends_s=60)


def test_page_has_the_generated_tables():
    page = PAGE.read_text(encoding="utf-8")

    assert with_tables(page, simulate_policies(BURST), simulate_policies(CALM)) == page


def test_speed_is_interpolated_between_measured_points():
    assert speed(MEASURED, 8) == 217.0
    assert 217.0 < speed(MEASURED, 12) < 273.0
    assert speed(MEASURED, 99) == 273.0


def test_one_server_is_limited_by_its_engine_and_a_thousand_by_their_database():
    def first(servers: int) -> str:
        return min(limits(MEASURED, CHAT, servers), key=lambda one: one.chats_s).part

    assert first(1) == "engines"
    assert first(1_000) == "connections of one PostgreSQL"


@pytest.mark.parametrize("policy", [Policy(), Policy(balance="any"), Policy(falls_back=True)])
def test_every_chat_is_answered_refused_or_relayed(policy):
    as_it_is = simulate(MEASURED, CHAT, servers=3, burst=SHORT, policy=policy)
    patient = replace(policy, line=10_000, deadline_s=10_000.0)
    all_answered = simulate(MEASURED, CHAT, servers=3, burst=SHORT, policy=patient)

    assert as_it_is.chats == all_answered.chats == len(all_answered.waits)


def test_no_chat_waits_longer_than_the_deadline():
    outcome = simulate(MEASURED, CHAT, servers=3, burst=SHORT, policy=Policy(deadline_s=5.0))

    assert 4.0 < outcome.wait_s(1.0) <= 5.0
    assert outcome.refused


def test_same_seed_gives_the_same_run():
    runs = [simulate(MEASURED, CHAT, servers=2, burst=SHORT, policy=Policy()) for _ in range(2)]

    assert runs[0].waits == runs[1].waits
