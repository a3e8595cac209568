"""When clients are told to look again."""

import pytest

from llm_backend.controllers.rendering.poll_interval import poll_headers


@pytest.mark.parametrize(
    ("age_s", "left", "wait_ms"),
    [(0, 1, 200), (10, 1, 1000), (600, 1, 5000), (0, 100, 2000), (0, 10_000, 5000), (-5, 1, 200)],
)
def test_the_poll_interval_grows_with_the_age(age_s, left, wait_ms):
    assert poll_headers(100, 100 + age_s, unfinished=left) == {"openai-poll-after-ms": str(wait_ms)}
