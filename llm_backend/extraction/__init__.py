"""Text extraction from files (plain text, source code, Markdown, HTML, PDF, DOCX, JSON and CSV),
and chunking of the text.

extractor.py  files to text, within bounds
formats.py    formats by first bytes, name and type
child.py      the parent's side of the child process
reader.py     the child process, which reads one file
chunking.py   text in chunks of tokens
errors.py     errors of extraction
"""

from llm_backend.extraction.child import ExtractionLimits
from llm_backend.extraction.chunking import Chunking, TextChunk, split_into_chunks
from llm_backend.extraction.errors import (
    ExtractionError,
    ExtractionLimitExceeded,
    NotShort,
    ReaderKilled,
    UnreadableFile,
    UnsupportedFile,
)
from llm_backend.extraction.extractor import ExtractedText, Extractor
from llm_backend.extraction.formats import Format

__all__ = [
    "Chunking",
    "ExtractedText",
    "ExtractionError",
    "ExtractionLimitExceeded",
    "ExtractionLimits",
    "Extractor",
    "Format",
    "NotShort",
    "ReaderKilled",
    "TextChunk",
    "UnreadableFile",
    "UnsupportedFile",
    "split_into_chunks",
]
