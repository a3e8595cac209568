"""Decodes plain text (pure)."""

import codecs

from llm_backend.extraction.errors import UnsupportedFile

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def decode(data: bytes) -> str:
    """Decodes UTF-8, or UTF-16 with a byte order mark, and converts line ends to those of Unix.
    Raises `UnsupportedFile` for other bytes, such as binary files."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnsupportedFile(
            f"The file is not text in UTF-8 or UTF-16, from byte {error.start} on."
        ) from error
    if "\0" in text:
        raise UnsupportedFile("The file is not text: it holds NUL bytes.")
    return text.replace("\r\n", "\n").replace("\r", "\n")
