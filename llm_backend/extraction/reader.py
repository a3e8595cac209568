"""Child process that reads one untrusted file, on its standard input.

    python -m llm_backend.extraction.reader FORMAT CPU_SECONDS MEMORY_BYTES TEXT_BYTES < file > text

Its exit code is one of those below. Unless that is `READ`, it prints a sentence instead of text.
Libraries are imported after the limits are set, so that the limits bound them, too.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import IO

from llm_backend.operating_system import limit_resources

READ, UNREADABLE, TOO_MUCH = 0, 3, 4

# Recursion limit: pages with some thousand levels exist.
NESTING = 10_000
# Limit of an unpacked archive: a document of 10,000 pages has less.
UNPACKED_BYTES = 256 * 1024 * 1024


class _UnreadableInput(Exception):
    """The file is damaged or protected by a password."""


class _LimitExceeded(Exception):
    """The file exceeds a limit."""


def main(arguments: list[str]) -> int:
    """Reads the file and returns the exit code."""
    format, cpu_s, memory_bytes, text_bytes = arguments[0], *map(int, arguments[1:])
    os.nice(10)  # requests have priority
    limit_resources(cpu_s, memory_bytes)
    sys.setrecursionlimit(NESTING)
    code, text = _run(_READERS[format], text_bytes)
    sys.stdout.buffer.write(text)
    return code


def _run(read: Callable[[IO[bytes]], Iterator[str]], text_bytes: int) -> tuple[int, bytes]:
    text = bytearray()
    try:
        for part in read(sys.stdin.buffer):
            text += clean(part).encode("utf-8", "replace")
            if len(text) > text_bytes:
                raise _LimitExceeded(f"The file holds more than {text_bytes} bytes of text.")
    except _UnreadableInput as error:
        return UNREADABLE, str(error).encode()
    except _LimitExceeded as error:
        return TOO_MUCH, str(error).encode()
    except MemoryError:
        return TOO_MUCH, b"Reading the file exceeds its memory limit."
    except RecursionError:
        return TOO_MUCH, b"The file is nested too deeply to be read."
    return READ, bytes(text)


def clean(text: str) -> str:
    """Converts line ends of Windows to those of Unix, and removes artefacts of libraries. These are
    NUL characters, and PDFium's mark (U+FFFE) for a hyphen that only divides a word between
    lines."""
    return text.replace("\r\n", "\n").replace("\0", "").replace("\ufffe", "")


def _pdf(file: IO[bytes]) -> Iterator[str]:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        is_locked = "assword" in str(error)
        reason = "The PDF is locked by a password." if is_locked else "The PDF is damaged."
        raise _UnreadableInput(reason) from error
    for number in range(len(document)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_range()
        except pypdfium2.PdfiumError as error:
            raise _UnreadableInput(f"Page {number + 1} of the PDF is damaged.") from error
        page.close()
        yield f"{text.strip()}\n\n"


def _html(file: IO[bytes]) -> Iterator[str]:
    yield _markdown(_decode_page(file.read()))


def _decode_page(html: bytes) -> bytes | str:
    """Returns a page as text if it is UTF-8 and declares no encoding: the parser would guess one,
    at times another. Other pages are returned as they are."""
    from bs4.dammit import EncodingDetector

    if b"\0" in html or EncodingDetector.find_declared_encoding(html, is_html=True) is not None:
        return html
    try:
        return html.decode("utf-8-sig")
    except UnicodeDecodeError:
        return html


def _markdown(html: bytes | str) -> str:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(html, "html.parser")
    for invisible in soup(["script", "style", "template", "noscript", "svg", "img"]):
        invisible.decompose()
    converter = MarkdownConverter(
        heading_style="ATX",
        bullets="-",
        escape_asterisks=False,  # names and addresses stay as they are
        escape_underscores=False,
    )
    text: str = converter.convert_soup(soup)
    return text.strip() + "\n"


def _docx(file: IO[bytes]) -> Iterator[str]:
    import zipfile

    try:
        with zipfile.ZipFile(file) as archive:
            unpacked_bytes = sum(one.file_size for one in archive.infolist())
            has_text = "word/document.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _UnreadableInput("The DOCX document is damaged.") from error
    if not has_text:
        raise _UnreadableInput("The archive is not a DOCX document: it has no word/document.xml.")
    if unpacked_bytes > UNPACKED_BYTES:
        raise _LimitExceeded(
            f"The document unpacks to {unpacked_bytes} bytes; the limit is {UNPACKED_BYTES}."
        )
    file.seek(0)
    yield _markdown(_docx_as_html(file))


def _docx_as_html(file: IO[bytes]) -> str:
    import zipfile
    import zlib
    from xml.parsers.expat import ExpatError

    import mammoth

    try:
        converted = mammoth.convert_to_html(file, convert_image=lambda image: [])
    except (zipfile.BadZipFile, zlib.error, ExpatError, KeyError, ValueError, EOFError) as error:
        raise _UnreadableInput("The DOCX document is damaged.") from error
    return str(converted.value)


_READERS = {"pdf": _pdf, "html": _html, "docx": _docx}


if __name__ == "__main__":
    assert isinstance(sys.stdin.buffer, io.BufferedReader), "the file is standard input"
    sys.exit(main(sys.argv[1:]))
