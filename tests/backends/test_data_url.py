"""Parser of data: URLs."""

import base64
import binascii
import tracemalloc

import pytest

from llm_backend.backends.data_url import DataUrl, decode_base64, parse_data_url


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


@pytest.mark.parametrize("length", [0, 1, 2, 3, 3 * 2**18 - 1, 3 * 2**18, 3 * 2**18 + 1, 2**21])
def test_base64_of_any_length_is_decoded(length):
    content = bytes(range(256)) * (length // 256 + 1)

    assert decode_base64(base64.b64encode(content[:length]).decode()) == content[:length]


@pytest.mark.parametrize(
    "text",
    ["a", "YQ", "YQ=", "YQ==YQ==", "Y Q=", "YQ==" + "\n", "A" * (2**20 - 4) + "YQ==" * 2],
)
def test_text_other_than_base64_is_refused(text):
    with pytest.raises(binascii.Error):
        decode_base64(text)
