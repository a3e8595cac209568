"""The model in the query of a WebSocket."""

from urllib.parse import parse_qs

import pytest

from llm_backend.backends.upstreams.sockets import model_of, with_model


@pytest.mark.parametrize("query", ["model=a", "mod%65l=a", "a=%20&model=b&mod%65l=a", "&model=a&"])
def test_the_name_that_is_read_is_the_one_that_is_exchanged(query: str):
    assert model_of(query) == "a"
    assert set(parse_qs(with_model(query, "x/y z"))["model"]) == {"x/y z"}


def test_other_words_stay_as_they_were():
    assert with_model("a=%20&model=b&c", "d") == "a=%20&model=d&c"
