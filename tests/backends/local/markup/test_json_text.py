"""Incremental JSON: the certain text can always be completed."""

import json

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.local.markup.json_text import JsonText, normalize_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)  # fmt: skip
written = st.builds(json.dumps, JSON, ensure_ascii=st.booleans(), indent=st.sampled_from([None, 2]))


@given(written)
def test_json_text_passes_valid_json_unchanged(text):
    assert normalize_json(text) == text


@given(written, st.integers(0, 200), st.text(alphabet='{}[],:"\\u0d8cNax1.-e tru', max_size=8))
def test_certain_json_can_always_be_completed(text, length, rest):
    value, certain = JsonText(), ""
    for char in text[:length] + rest:
        if not value.feed(char):
            break
        certain += value.drain()

    value.end_scalar()
    json.loads(certain + value.drain() + value.completion(), parse_constant=lambda word: 1 / 0)


@given(st.text(alphabet='{}[],:"\\u0d8cNax1.-e tru\n', max_size=12))
def test_json_text_rejects_invalid_json(text):
    taken = normalize_json(text)

    if taken is not None:
        json.loads(taken, parse_constant=lambda word: 1 / 0)


def test_json_nesting_and_numbers_are_bounded():
    assert normalize_json("[" * 65 + "]" * 65) is None
    assert normalize_json("1" * 500) is None
