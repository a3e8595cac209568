"""Backoff: delays double up to their limit, after any number of failures."""

from llm_backend.backoff import backoff_delay_s


def test_delays_double_until_the_limit_and_never_overflow():
    delays = [backoff_delay_s(0.5, number, 8) for number in (1, 2, 3, 6, 2000)]

    assert delays == [0.5, 1, 2, 8, 8]
