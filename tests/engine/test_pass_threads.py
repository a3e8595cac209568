"""Thread counts of a real context's passes."""

import logging
import time

import llama_cpp as native
import pytest

from llm_backend.engine.llama import LlamaLog, LlamaModel
from llm_backend.engine.pass_threads import PassThreads, first_thread_count
from llm_backend.operating_system import usable_cores
from tests.engine.fakes import load_command

CORES = 2


@pytest.fixture(scope="module")
def context(tiny_llama):
    """The native context of a tiny model, set up for two threads."""
    model = LlamaModel(load_command(model_path=tiny_llama, threads=CORES), LlamaLog())
    return model.context


def preempted() -> int:
    """A pass whose threads get no processor time."""
    time.sleep(0.02)
    return 0


def test_pass_threads_of_a_tiny_model_are_one_unless_set():
    wanted, unset = load_command(threads=8), load_command(threads=None)

    assert first_thread_count(wanted, weights_bytes=1000) == 8
    assert first_thread_count(unset, weights_bytes=1000) == 1
    assert first_thread_count(unset, weights_bytes=1 << 30) == usable_cores()


def test_pass_threads_are_reduced_if_starved(context, caplog):
    threads = pass_threads(context, is_learning=True)
    with caplog.at_level(logging.DEBUG):
        counts = [compute_one(threads, context) for _ in range(10)]

    assert counts[0] == CORES
    assert counts[-1] == 1
    assert "engine.threads count=1 before=2" in caplog.text


def test_pass_threads_that_are_set_stay(context):
    native.llama_set_n_threads(context, CORES, CORES)
    threads = pass_threads(context, is_learning=False)

    assert {compute_one(threads, context) for _ in range(10)} == {CORES}


def pass_threads(context: object, *, is_learning: bool) -> PassThreads:
    def set_count(count: int) -> None:
        native.llama_set_n_threads(context, count, count)

    return PassThreads(CORES, set_count, is_learning=is_learning)


def compute_one(threads: PassThreads, context: object) -> int:
    """The thread count that a pass had."""
    assert threads.compute(1, preempted) == 0
    return native.llama_n_threads(context)
