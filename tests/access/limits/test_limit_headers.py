"""Tests of the headers of rate limits."""

import pytest

from llm_backend.access.limits.limit_headers import format_duration


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.85, "850ms"),
        (0.9996, "1s"),
        (12.5, "12.5s"),
        (59.94, "59.9s"),
        (59.96, "1m0s"),
        (360.4, "6m0s"),
        (86_340, "23h59m0s"),
    ],
)
def test_durations_are_in_openais_format(seconds, written):
    assert format_duration(seconds) == written
