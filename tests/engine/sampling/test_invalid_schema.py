"""The part of a schema that cannot be compiled: its location, and the bounds of the search."""

import json

import pytest

from llm_backend.engine.sampling import invalid_schema
from llm_backend.engine.sampling.invalid_schema import find_invalid_schema


class Clock:
    """Clock that trials move."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(invalid_schema, "time", clock)
    return clock


def nested(depth: int) -> dict:
    """A schema whose innermost part has a pattern that no grammar knows."""
    schema: dict = {"type": "string", "title": "t", "pattern": "(?=a)"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def search(schema: object, clock: Clock, trial_s: float) -> tuple[str, int]:
    """The location that is found with trials of this duration, and their number."""
    trials = []

    def reason_of(part: object) -> str | None:
        trials.append(part)
        clock.now += trial_s
        return "lookaround" if "pattern" in json.dumps(part) else None

    found = find_invalid_schema(f"start: %json {json.dumps(schema)}", reason_of)
    assert found is not None
    return found.location, len(trials)


def test_innermost_keyword_is_found(clock):
    location, _ = search(nested(3), clock, trial_s=0.001)

    assert location == "start/items/items/items/pattern"


def test_search_ends_after_a_second_of_trials_with_the_part_found_so_far(clock):
    location, trials = search(nested(30), clock, trial_s=0.3)

    assert (location, trials) == ("start/items/items/items", 4)


def test_keyword_is_left_out_if_the_time_ends_before_it_is_known(clock):
    location, trials = search(nested(1), clock, trial_s=0.45)

    assert (location, trials) == ("start/items", 3)


def test_number_of_trials_is_bounded(clock):
    _, trials = search(nested(400), clock, trial_s=0.0)

    assert trials == 200
