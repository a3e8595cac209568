"""List of an upstream's models, as it is parsed."""

import json

import pytest

from llm_backend.backends.upstream.model_list import parse_models


@pytest.mark.parametrize(
    ("created", "parsed"),
    [
        (1_700_000_000, 1_700_000_000),
        (1.7e9, 1_700_000_000),
        (1.7e12, 0),
        (-1, 0),
        (None, 0),
        ("1", 0),
    ],
)
def test_models_have_a_time_that_clients_can_read(created, parsed):
    listed = {"data": [{"id": "a", "object": "model", "created": created, "more": 1}]}

    assert parse_models(200, json.dumps(listed).encode()) == [
        {"id": "a", "object": "model", "created": parsed, "more": 1}
    ]


def test_models_without_a_time_have_that_of_1970():
    assert parse_models(200, b'{"data": [{"id": "a"}]}') == [{"id": "a", "created": 0}]
