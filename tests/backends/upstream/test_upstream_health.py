"""Outlier ejection: consecutive failures eject an upstream, and probes end it."""

import pytest

from llm_backend.backends.upstream.upstream_health import (
    EJECTION_S,
    FAILURES,
    LONGEST_EJECTION_S,
    UpstreamHealth,
)


def ejected(*, at_s: float = 100) -> UpstreamHealth:
    health = UpstreamHealth()
    for _ in range(FAILURES):
        health.record_failure(at_s, health.record_request())
    return health


def test_one_failure_does_not_eject():
    health = UpstreamHealth()
    health.record_failure(1, health.record_request())
    health.record_success(health.record_request())
    health.record_failure(2, health.record_request())

    assert health.admits(2)


def test_consecutive_failures_eject():
    health = ejected(at_s=100)

    assert not health.admits(100 + EJECTION_S - 0.1)
    assert health.admits(100 + EJECTION_S)


def test_ejected_upstream_is_probed_by_one_request_at_a_time():
    health = ejected(at_s=100)
    epoch = health.record_request()

    assert not health.admits(1000)
    health.record_cancel(epoch)  # its client left: the next one may
    assert health.admits(1000)


def test_failed_probe_doubles_the_ejection_up_to_a_bound():
    health, now = ejected(at_s=0), 0.0
    waits = []
    for _ in range(6):
        began = now
        while not health.admits(now):
            now += 0.5
        waits.append(now - began)
        health.record_failure(now, health.record_request())

    assert waits == [5, 10, 20, 40, 60, LONGEST_EJECTION_S]


def test_probe_whose_complete_answer_is_invalid_doubles_the_ejection():
    health = ejected(at_s=100)
    now = 100 + EJECTION_S
    epoch = health.record_request()
    health.record_answer_start(epoch)
    health.record_success(epoch)
    health.withdraw_success(epoch)
    health.record_failure(now, epoch)

    assert not health.admits(now + 2 * EJECTION_S - 0.1)
    assert health.admits(now + 2 * EJECTION_S)


def test_successful_probe_ends_the_ejection():
    health = ejected(at_s=100)
    health.record_success(health.record_request())

    assert health.admits(100)
    assert not health.is_ejected


@pytest.mark.parametrize("fails_at", [103, 100 + EJECTION_S, 1000])
def test_outstanding_requests_do_not_prolong_an_ejection(fails_at):
    health = UpstreamHealth()
    outstanding = health.record_request()
    for _ in range(FAILURES):
        health.record_failure(100, health.record_request())
    health.record_failure(fails_at, outstanding)

    assert health.admits(max(fails_at, 100 + EJECTION_S))


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize("is_probed", [True, False])
def test_outstanding_requests_do_not_end_an_ejection(is_complete, is_probed):
    health = UpstreamHealth()
    outstanding = health.record_request()
    for _ in range(FAILURES):
        health.record_failure(100, health.record_request())
    if is_probed:
        health.record_request()
    health.record_answer_start(outstanding)
    if is_complete:
        health.record_success(outstanding)

    assert health.is_ejected
    assert not health.admits(100)
    assert health.admits(1000) is not is_probed


def test_outstanding_requests_do_not_shorten_the_next_ejection():
    health = UpstreamHealth()
    outstanding = health.record_request()
    for _ in range(FAILURES):
        health.record_failure(100, health.record_request())
    health.record_answer_start(health.record_request())  # the probe's answer
    health.record_success(outstanding)
    health.record_failure(200, health.record_request())

    assert not health.admits(200 + EJECTION_S)
    assert health.admits(200 + 2 * EJECTION_S)


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_outstanding_requests_do_not_let_a_second_probe_pass(is_cancelled):
    health = UpstreamHealth()
    outstanding = health.record_request()
    for _ in range(FAILURES):
        health.record_failure(100, health.record_request())
    health.record_request()  # the probe
    if is_cancelled:
        health.record_cancel(outstanding)
    else:
        health.record_failure(1000, outstanding)

    assert not health.admits(1000)


def test_answers_that_break_off_prolong_each_ejection():
    health, ejected_at = UpstreamHealth(), []
    for now in range(100):
        if health.admits(now):
            epoch = health.record_request()
            health.record_answer_start(epoch)
            health.record_failure(now, epoch)
            if health.is_ejected:
                ejected_at.append(now)

    assert ejected_at == [2, 7, 17, 37, 77]


def test_cancelled_probe_leaves_the_ejection_as_it_is():
    health = UpstreamHealth()
    for now in range(FAILURES):
        health.record_failure(now, health.record_request())
        epoch = health.record_request()
        health.record_answer_start(epoch)
        health.record_cancel(epoch)

    assert health.admits(FAILURES)
    health.record_failure(FAILURES, health.record_request())
    assert health.is_ejected


def test_upstream_is_available_while_it_is_probed():
    health = ejected(at_s=100)

    assert not health.is_available(100 + EJECTION_S - 0.1)
    health.record_request()
    assert health.is_available(100 + EJECTION_S)
