"""The model in the query of a WebSocket."""

from urllib.parse import parse_qs

import pytest

from llm_backend.backends.upstream.websockets import model_of, rename_query_model
from llm_backend.errors import InvalidRequest


@pytest.mark.parametrize("query", ["model=a", "mod%65l=a", "a=%20&model=a&mod%65l=a", "&model=a&"])
def test_model_in_a_query_is_replaced(query: str):
    assert model_of(query) == "a"
    assert set(parse_qs(rename_query_model(query, "x/y z"))["model"]) == {"x/y z"}


@pytest.mark.parametrize("query", ["model=a&model=b", "a=%20&model=b&mod%65l=a", "model=&Model=a"])
def test_two_models_in_a_query_are_refused(query: str):
    with pytest.raises(InvalidRequest, match="more than one"):
        model_of(query)


def test_other_query_parameters_are_unchanged():
    assert rename_query_model("a=%20&model=b&c", "d") == "a=%20&model=d&c"
