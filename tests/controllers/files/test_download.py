"""Byte ranges of downloads, and the headers that a browser gets."""

import pytest

from llm_backend.controllers.files.download import ByteRange, byte_range, disposition
from llm_backend.errors import RangeNotSatisfiable


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=2-4", 2, 5),
        ("bytes=2-", 2, 10),
        ("bytes=2-999", 2, 10),
        ("bytes=-3", 7, 10),
        ("bytes=-999", 0, 10),
        ("Bytes= 9-9 ", 9, 10),
    ],
)
def test_a_range_is_some_of_the_bytes(header, start, end):
    assert byte_range(header, 10) == ByteRange(start=start, end=end)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=-", "bytes=4-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=1"],
)
def test_several_or_malformed_ranges_give_the_whole_file(header):
    assert byte_range(header, 10) is None


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-11", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(header):
    with pytest.raises(RangeNotSatisfiable) as raised:
        byte_range(header, 10)

    assert raised.value.headers == {"Content-Range": "bytes */10"}


@pytest.mark.parametrize(
    ("filename", "told"),
    [
        ("a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
        ('x";y', "attachment; filename=\"x__y\"; filename*=UTF-8''x%22%3By"),
        ("ü.txt", "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%BC.txt"),
        ("../../etc/passwd", "attachment; filename=\"passwd\"; filename*=UTF-8''passwd"),
        ("C:\\x\\", "attachment; filename=\"file\"; filename*=UTF-8''file"),
    ],
)
def test_a_file_name_is_never_sent_as_a_path(filename, told):
    assert disposition(filename) == told
