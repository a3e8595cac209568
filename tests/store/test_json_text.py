"""JSON of columns."""

import json

import pytest

from llm_backend.store import json_text


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1.5, None, True, 10**40], "": {}},
        "\ud800 alone",
        {"long": '"\\\n😀é\ud800' * 400_000, "\n" * 2**21: ["a" * (2**20 + 1)]},
    ],
)
def test_encoded_values_are_ascii_and_come_back(value):
    text = json_text.encode(value)

    assert text == json.dumps(value, separators=(",", ":"))
    assert json_text.loads(text) == value
