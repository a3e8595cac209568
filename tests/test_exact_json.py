import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_backend import exact_json

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**40), 10**40),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(exclude_categories=["Cs"])),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text("ab9"), inner)),
    max_leaves=6,
)


@given(value=values)
@example(value=[9007199254740993, -9007199254740993])
@example(value={"a": [2**64, -(2**63) - 1, 10**30]})
@example(value="1" * 40)
@example(value=[1.5, 10**25])
def test_exact_json_round_trips_values(value):
    again = exact_json.loads(exact_json.dumps(value))

    assert again == value
    assert repr(again) == repr(value)


@pytest.mark.parametrize("kind", [bytes, bytearray, str])
def test_exact_json_decodes_every_kind_of_text(kind):
    text = '{"a": 123456789012345678901234567890}'

    value = exact_json.loads(text if kind is str else kind(text.encode()))

    assert value == {"a": 123456789012345678901234567890}


@pytest.mark.parametrize(
    "text",
    ["[1e400]", "[1" + "0" * 400 + "]", '["\\ud800", 12345678901234567890123]', "[NaN]", "[1,]"],
)
def test_exact_json_refuses_what_orjson_refuses(text):
    with pytest.raises(orjson.JSONDecodeError):
        exact_json.loads(text)


@pytest.mark.parametrize("value", [["\ud800", 10**30], {"a": object()}, [10**30, object()]])
def test_exact_json_refuses_values_outside_of_json(value):
    with pytest.raises(orjson.JSONEncodeError):
        exact_json.dumps(value)


@pytest.mark.parametrize("spaces", [2**20 - 30, 2**20 - 19, 2**20 - 1, 2**20, 2**21 - 10])
def test_long_integer_across_stretches_is_exact(spaces):
    text = b"[" + b" " * spaces + b"123456789012345678901234567890" + b" " * 2**20 + b"]"

    assert exact_json.loads(text) == [123456789012345678901234567890]
