"""Rate limits are told as the headers of the answer tell them."""

import pytest

from llm_backend.controllers.realtime.rate_limit_events import rate_limits_event


@pytest.mark.parametrize(
    ("reset", "seconds"), [("850ms", 0.85), ("12.5s", 12.5), ("6m0s", 360), ("23h59m1s", 86_341)]
)
def test_limits_have_their_seconds(reset, seconds):
    headers = {"limit": "60", "remaining": "59", "reset": reset}
    event = rate_limits_event(
        [(f"x-ratelimit-{name}-requests".encode(), one.encode()) for name, one in headers.items()]
    )

    (limit,) = event["rate_limits"]
    assert (limit["name"], limit["limit"], limit["remaining"]) == ("requests", 60, 59)
    assert limit["reset_seconds"] == pytest.approx(seconds)


def test_without_limits_there_is_no_event():
    assert rate_limits_event([(b"content-type", b"text/event-stream")]) is None
