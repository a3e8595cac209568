"""Rewriting of a model's name in a body; every other byte stays."""

import tracemalloc

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.upstream.body_rewriting import rename_model, with_value

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"b"}'),
        (b'{ "x" : 1.50,\n"model" :\t"a" , "y":[] }', b'{ "x" : 1.50,\n"model" :\t"b" , "y":[] }'),
        (b'{"model":"a","model":"c"}', b'{"model":"b","model":"b"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"b"}'),
        (b'{"x":{"model":"a"},"model":"a"}', b'{"x":{"model":"a"},"model":"b"}'),
        (b'{"x":"model","y":["model","a"]}', b'{"x":"model","y":["model","a"]}'),
        (b'{"x":"\\"model\\":\\"a\\"","model":"a"}', b'{"x":"\\"model\\":\\"a\\"","model":"b"}'),
        (b"", b""),
    ],
)
def test_rename_changes_only_the_top_level_model(body: bytes, expected: bytes):
    assert rename_model(body, "b") == expected


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4), st.text(max_size=10))
def test_renamed_body_parses_to_the_same_values(more, name):
    body = {**more, "model": "old", "last": more}

    assert orjson.loads(rename_model(orjson.dumps(body), name)) == {**body, "model": name}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", b'{"store":false}'),
        (b' { "a":[1,{"store":true}] }', b' {"store":false, "a":[1,{"store":true}] }'),
        (b'{"store" :\tnull\n,"a":{}}', b'{"store" :\tfalse\n,"a":{}}'),
        (b'{"store":{"a":[1,2]},"store":[{}] }', b'{"store":false,"store":false }'),
        (b'{"a":"store","st\\u006fre":1}', b'{"a":"store","st\\u006fre":false}'),
    ],
)
def test_top_level_value_is_replaced_or_added(body: bytes, expected: bytes):
    assert with_value(body, "store", False) == expected


@given(st.dictionaries(st.text(max_size=8) | st.just("store"), json_values, max_size=4))
def test_replaced_value_leaves_the_other_values(body):
    assert orjson.loads(with_value(orjson.dumps(body), "store", False)) == {**body, "store": False}


def test_long_string_is_scanned_without_extra_memory():
    body = b'{"url": "' + b"A" * 1_000_000 + rb"\n" * 100_000 + b'", "model": "a"}'
    tracemalloc.start()
    try:
        rename_model(body, "b")
        assert tracemalloc.get_traced_memory()[1] < 5 * len(body)  # not for every byte of it
    finally:
        tracemalloc.stop()
