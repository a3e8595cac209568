"""Detects the format of a file by its first bytes, or else by its name and media type (pure)."""

import codecs
from enum import Enum
from pathlib import PurePosixPath

from llm_backend.extraction.errors import UnsupportedFile

HEAD_BYTES = 1024  # which must contain the signature of a PDF

_PDF = b"%PDF-"
_ZIP = b"PK\x03\x04"
_OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # signature of .doc, .xls and .ppt before 2007
_SUPPORTED = "Supported are text, source code, Markdown, HTML, PDF, DOCX, JSON and CSV."


class Format(Enum):
    """Formats of files, and of extracted text: `MARKDOWN`, `TABLE` or `TEXT`."""

    TEXT = "text"
    MARKDOWN = "markdown"
    TABLE = "table"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"

    @property
    def is_text(self) -> bool:
        """True if the file needs no conversion to text."""
        return self in (Format.TEXT, Format.MARKDOWN, Format.TABLE)


_BY_SUFFIX = {
    ".csv": Format.TABLE,
    ".tsv": Format.TABLE,
    ".htm": Format.HTML,
    ".html": Format.HTML,
    ".xhtml": Format.HTML,
    ".markdown": Format.MARKDOWN,
    ".md": Format.MARKDOWN,
    ".docx": Format.DOCX,
}
_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_BY_MEDIA_TYPE = {
    "text/csv": Format.TABLE,
    "text/tab-separated-values": Format.TABLE,
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    "text/markdown": Format.MARKDOWN,
    _WORD: Format.DOCX,
}


def detect_format(head: bytes, filename: str, media_type: str) -> Format:
    """Detects the format of a file that begins with `head`. Raises `UnsupportedFile` for an
    archive other than DOCX. A file detected as text may still fail to decode."""
    if _is_pdf(head[:HEAD_BYTES], filename, media_type):
        return Format.PDF
    declared = _declared_format(filename, media_type)
    if head.startswith(_ZIP):
        if declared is not Format.DOCX:
            raise UnsupportedFile(f"The file is an archive and not a DOCX document. {_SUPPORTED}")
        return Format.DOCX
    if head.startswith(_OLE):
        raise UnsupportedFile(
            "The file is an Office document of a format before 2007; save it as DOCX or PDF."
        )
    if declared is Format.DOCX:
        raise UnsupportedFile("The file is declared as a DOCX document, but is not one.")
    if declared is Format.TEXT and _looks_like_html(head):
        return Format.HTML
    return declared


def _is_pdf(head: bytes, filename: str, media_type: str) -> bool:
    """True for a file with the signature of a PDF. Readers of PDFs accept other bytes before it;
    a text that mentions the signature stays a text, unless it is declared as a PDF."""
    if _PDF not in head:
        return False
    is_declared = filename.lower().endswith(".pdf") or media_type == "application/pdf"
    return is_declared or _content(head).startswith(_PDF) or not _looks_like_text(head)


def _looks_like_text(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _content(head: bytes) -> bytes:
    """Returns the bytes after a byte order mark and blanks."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip()


def _declared_format(filename: str, media_type: str) -> Format:
    suffix = PurePosixPath(filename).suffix.lower()
    return _BY_SUFFIX.get(suffix) or _BY_MEDIA_TYPE.get(media_type, Format.TEXT)


def _looks_like_html(head: bytes) -> bool:
    return _content(head)[:15].lower().startswith((b"<!doctype html", b"<html"))
