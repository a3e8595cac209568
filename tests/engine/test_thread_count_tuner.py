"""Thread counts are learnt from what passes cost and from the processor time that they get."""

import random
from collections.abc import Callable

import pytest

from llm_backend.engine.thread_count_tuner import ThreadCountTuner

Machine = Callable[[int, int], tuple[float, float]]
"""Seconds and processor time of a pass, by its tokens and threads."""


def idle(tokens: int, threads: int) -> tuple[float, float]:
    """Every thread has a core of its own, and each waits a little for the others."""
    seconds = (0.004 + 0.0005 * tokens) / threads + 0.0001
    return seconds, 0.97 * seconds * threads


def shared(cores: int, dice: random.Random) -> Machine:
    """A machine that leaves `cores` cores to the passes: more threads than that wait for each
    other, in one pass more than in another."""

    def cost(tokens: int, threads: int) -> tuple[float, float]:
        seconds, cpu_s = idle(tokens, threads)
        if threads > cores:
            seconds *= dice.choice([1, 1, 3, 5, 30])
        return seconds, cpu_s

    return cost


def compute(
    count: ThreadCountTuner, machine: Machine, seconds: float, tokens=(1,)
) -> dict[int, float]:
    """Compute passes for `seconds`; return the time spent with each thread count."""
    spent: dict[int, float] = {}
    while sum(spent.values()) < seconds:
        for each in tokens:
            threads = count.current
            took_s, cpu_s = machine(each, threads)
            count.record_pass(each, took_s, cpu_s)
            spent[threads] = spent.get(threads, 0) + took_s
    return spent


@pytest.mark.parametrize("most", [1, 2, 3, 16])
def test_thread_count_is_maximal_on_an_idle_machine(most):
    count = ThreadCountTuner(most)

    assert compute(count, idle, 60, tokens=(1, 5, 512)).keys() == {most}


@pytest.mark.parametrize("tokens", [(1,), (1, 1, 9, 4), (512,), (1, 300, 40)])
@pytest.mark.parametrize(("most", "cores"), [(2, 1), (4, 3), (16, 15), (16, 7), (64, 20)])
def test_thread_count_falls_to_the_free_cores(most, cores, tokens):
    count, machine = ThreadCountTuner(most), shared(cores, random.Random(0))
    compute(count, machine, 60, tokens)

    spent = compute(count, machine, 600, tokens)

    assert sum(s for threads, s in spent.items() if threads > cores) < 0.15 * sum(spent.values())
    assert min(spent) >= cores / 2


@pytest.mark.parametrize("most", [2, 16])
def test_thread_count_rises_again_when_the_load_ends(most):
    count = ThreadCountTuner(most)
    compute(count, shared(1, random.Random(0)), 120)
    assert count.current < most

    compute(count, idle, 120)

    assert count.current == most


def test_thread_count_does_not_fall_if_fewer_threads_are_slower():
    """Cores of two speeds: the threads of fast ones sleep until the slow ones are done."""

    def uneven(tokens: int, threads: int) -> tuple[float, float]:
        seconds, cpu_s = idle(tokens, threads)
        return seconds, 0.6 * cpu_s

    count = ThreadCountTuner(8)
    spent = compute(count, uneven, 120)

    assert count.current == 8
    assert spent[8] > 0.97 * sum(spent.values())


def test_thread_count_trial_ignores_passes_of_other_sizes():
    count, machine = ThreadCountTuner(2), shared(1, random.Random(0))
    while count.current == 2:
        compute(count, machine, 0.001)

    for _ in range(100):
        count.record_pass(400, 0.001, 0.001)

    assert count.current == 2
