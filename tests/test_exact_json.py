import gc
import json
import re
import sys
from fractions import Fraction

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


@given(value=st.integers(2**53, 10**40), places=st.integers(-12, 12), point=st.integers(0, 12))
def test_whole_decimal_is_exact_in_every_form(value, places, point):
    digits = f"{value}{'0' * 12}"
    text = f"{digits[:-point]}.{digits[-point:]}" if point else digits

    found = exact_json.loads(f"[{text}e{places - 12 + point}]")[0]

    exact = value * Fraction(10) ** places
    assert Fraction(repr(found)) == exact or exact.denominator > 1


@given(value=values)
@example(value=[9007199254740993, -9007199254740993])
@example(value={"a": [2**64, -(2**63) - 1, 10**30]})
@example(value="1" * 40)
@example(value=[1.5, 10**25])
def test_exact_json_round_trips_values(value):
    again = exact_json.loads(exact_json.dumps(value))

    assert again == value
    assert repr(again) == repr(value)


@given(value=values)
@example(value={"a": [1, [], {}, [2, {"b": None}], 3, 4, 5], "": {"c": [[1.5]]}})
def test_pieces_are_the_text_that_one_call_writes(value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_json, "_MANY_ITEMS", 0)
        patch.setattr(exact_json, "_PIECE_ITEMS", 2)

        assert exact_json.encode_in_pieces(value, json.dumps, ", ", ": ") == json.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        [0.5] * 20_000,
        {"a": [[0.5] * 200] * 100},
        [{"a": {}}] * 20_000,
        dict.fromkeys("ab", [1] * 9999),
    ],
)
def test_many_items_are_encoded_by_short_calls(value):
    sizes = []

    def encode(one):
        sizes.append(len(one) if isinstance(one, (list, dict)) else 1)
        return json.dumps(one)

    text = exact_json.encode_in_pieces(value, encode, ", ", ": ")

    assert text == json.dumps(value)
    assert max(sizes) <= 5000


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


@pytest.mark.parametrize(
    "text",
    [
        "9007199254740993.0", "9007199254740993E0", "9007199254740993e0", "9007199254740993e+0",
        "90071992547409930e-1", "90071992547409930.0e-1", "9007199254740993e-0",
        "9007199254740993E-00", "9.007199254740993e15", "0.9007199254740993e16",
        "900719925474099.3e1", "9007199254740.993E+3", "9007199254740993000.000e-3",
    ],
)  # fmt: skip
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("before", ["", "x" * (2**20 - 12)])
def test_whole_decimal_that_a_float_would_change_is_an_integer(text, sign, before):
    number = text if sign > 0 else f"-{text}"

    [_, found] = exact_json.loads(f'["{before}",{number}]')

    assert repr(found) == repr(sign * 9007199254740993)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e23", 1e23),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("9007199254740994.0", 9007199254740994.0),
        ("9007199254740993.5", 9007199254740994.0),
        ("-1.1920928244535389e-07", -1.1920928244535389e-07),
        ("1234567890123456.5", 1234567890123456.5),
        ("12345678901234567e-0, 1.5", 12345678901234567),
    ],
)
def test_number_that_a_float_keeps_is_a_float(text, value):
    first = exact_json.loads(f"[{text}]")[0]

    assert repr(first) == repr(value)


@pytest.mark.parametrize("text", ["{", "", "[1]", '"{}"', "null", "NaN"])
def test_text_that_is_no_json_object_is_parsed_to_none(text):
    assert exact_json.parse_object(text) is None
    assert exact_json.parse_object(b'{"a": 18446744073709551616}') == {"a": 2**64}


def test_whole_decimal_of_very_many_digits_is_refused_by_its_place():
    with pytest.raises(orjson.JSONDecodeError, match="64 digits") as caught:
        exact_json.loads(b'["\xc3\xa4", 1234567890123456789e200]')

    assert caught.value.pos == 6


@pytest.mark.parametrize("text", ["1e99999999999999999999", "-1E+999", "9" * 400 + ".5"])
def test_number_beyond_all_floats_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        exact_json.read_decimal(text)


@pytest.mark.parametrize("spaces", [2**20 - 30, 2**20 - 19, 2**20 - 1, 2**20, 2**21 - 10])
def test_long_integer_across_stretches_is_exact(spaces):
    text = b"[" + b" " * spaces + b"123456789012345678901234567890" + b" " * 2**20 + b"]"

    assert exact_json.loads(text) == [123456789012345678901234567890]


def test_the_collector_does_not_visit_the_values_of_a_large_text_while_they_are_made(request):
    phases: list[str] = []
    text = "[" + ",".join(["[]"] * 20_000) + "]"

    def note(phase: str, _: dict[str, int]) -> None:
        phases.append(phase)

    request.addfinalizer(lambda: gc.callbacks.remove(note))
    gc.callbacks.append(note)
    orjson.loads(text)
    by_itself = len(phases)
    phases.clear()
    value = exact_json.loads(text)
    seen = len(phases)

    assert by_itself > 2 or sys.version_info >= (3, 12)  # which collects after native calls only
    assert seen <= 2  # one collection afterwards
    assert gc.isenabled()
    assert len(value) == 20_000
