"""Tools of the MCP server: what they make of the bytes of a file."""

from typing import Any

import pytest

from llm_backend.controllers.mcp.tools import tools_of
from llm_backend.errors import InvalidRequest


def read_pieces(data: bytes, length: int) -> list[str]:
    """The file in pieces, as a client reads one after the other."""
    (tool,) = [one for one in tools_of(file_limit_bytes=1024) if one.name == "read_file"]
    pieces = []
    for offset in range(0, len(data), length):
        given: Any = {"file_id": "f", "offset": offset, "length": length}
        start, end = tool.request(given).byte_range or (0, 0)
        pieces.append(tool.render(data[start:end], given))
    return pieces


@pytest.mark.parametrize("length", range(4, 9))
def test_pieces_of_a_text_join_to_all_of_it(length: int):
    text = "naïve café – 人工 😀!"

    assert "".join(read_pieces(text.encode(), length)) == text


def test_each_piece_before_the_end_has_text() -> None:
    (tool,) = [one for one in tools_of(file_limit_bytes=1024) if one.name == "read_file"]
    data = "😀éa人".encode()
    length = tool.input_schema["properties"]["length"]["minimum"]

    for offset in range(len(data) - len("人".encode()) + 1):
        piece = data[offset : offset + length + 3]
        assert tool.render(piece, {"file_id": "f", "offset": offset, "length": length})


def test_whole_numbers_may_be_written_with_a_point() -> None:
    tools = {one.name: one for one in tools_of(file_limit_bytes=1024)}
    given: Any = {"file_id": "f", "offset": 1.0, "length": 4.0}

    assert tools["read_file"].request(given).headers == [(b"range", b"bytes=1-7")]
    assert tools["read_file"].render(b"abcdefg", given) == "abcd"
    assert tools["list_files"].request({"limit": 100.0}).query == b"limit=100"


@pytest.mark.parametrize("data", ["café!".encode("latin-1"), b"a\0b", b"ab\xc3"])
def test_other_bytes_than_utf8_are_refused(data: bytes):
    with pytest.raises(InvalidRequest, match="not a text in UTF-8"):
        read_pieces(data, 100)
