"""When a request comes in too slowly."""

from llm_backend.server.request_pace import PaceLimits, RequestPace

LIMITS = PaceLimits(head_s=30, body_bytes_per_s=100, body_grace_s=10)


def in_body() -> RequestPace:
    pace = RequestPace(LIMITS, 0)
    pace.end_head()
    return pace


def test_pace_limits_the_time_to_the_first_head():
    pace = RequestPace(LIMITS, 5)
    pace.record_head(20)  # bytes do not add any

    assert not pace.is_too_slow(34.9)
    assert pace.is_too_slow(35)


def test_pace_limits_a_later_head_from_its_first_byte_on():
    pace = in_body()
    pace.end_request()

    assert not pace.is_too_slow(1000)
    pace.record_head(1000)
    pace.record_head(1020)
    assert not pace.is_too_slow(1029)
    assert pace.is_too_slow(1030)


def test_pace_accepts_a_body_at_the_minimum_rate():
    pace = in_body()
    for second in range(100_000):
        pace.record_body(100)
        pace.charge_wait(1)
        assert not pace.is_too_slow(second)


def test_pace_refuses_a_body_below_the_minimum_rate():
    pace, seconds = in_body(), 0
    while not pace.is_too_slow(seconds):
        pace.record_body(50)
        pace.charge_wait(1)
        seconds += 1

    # half of the rate falls behind by half a second each, once the first is spent
    assert seconds == 19


def test_pace_limits_a_pause_of_a_body_to_the_grace_period():
    pace = in_body()
    pace.record_body(10**9)
    pace.charge_wait(9.9)

    assert not pace.is_too_slow(0)
    pace.charge_wait(0.1)
    assert pace.is_too_slow(0)


def test_pace_ignores_time_in_which_the_server_does_not_read():
    pace = RequestPace(LIMITS, 0)
    pace.charge_wait(1000)
    pace.end_head()

    assert not pace.is_too_slow(0)
    pace.end_request()
    pace.charge_wait(1000)
    assert not pace.is_too_slow(0)
