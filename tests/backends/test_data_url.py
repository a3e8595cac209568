"""Parser of data: URLs."""

import tracemalloc

import pytest

from llm_backend.backends.data_url import DataUrl, parse_data_url


@pytest.mark.parametrize(
    ("url", "media_type"),
    [
        ("data:image/png;base64,QUJD", "image/png"),
        ("DATA:text/plain;charset=utf-8;BASE64,QUJD", "text/plain"),
        ("data:;base64,QUJD", ""),
        ("data:;;;base64,QUJD", ""),
    ],
)
def test_data_url_is_parsed(url, media_type):
    assert parse_data_url(url) == DataUrl(media_type=media_type, base64="QUJD")


@pytest.mark.parametrize(
    "url",
    ["", "QUJD", "data:image/png,QUJD", "data:;base64", "data:base64,QUJD", "http://a;base64,QUJD",
     "data:a,b;base64,QUJD"],
)  # fmt: skip
def test_other_urls_are_none(url):
    assert parse_data_url(url) is None


def test_parsing_takes_no_extra_memory():
    url = "data:" + ";" * 1_000_000
    tracemalloc.start()
    try:
        assert parse_data_url(url) is None
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
