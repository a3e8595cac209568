"""Text extraction from files (plain text, source code, Markdown, HTML, PDF, DOCX, JSON and CSV),
and chunking of the text."""

from llm_backend.extraction.chunking import Chunking, CountTokens, TextChunk, chunks_of
from llm_backend.extraction.errors import (
    ExtractionError,
    ReaderKilled,
    TakesLong,
    TooMuchWork,
    UnreadableFile,
    UnsupportedFile,
)
from llm_backend.extraction.extractor import Extracted, ExtractionLimits, Extractor
from llm_backend.extraction.formats import Format

__all__ = [
    "Chunking",
    "CountTokens",
    "Extracted",
    "ExtractionError",
    "ExtractionLimits",
    "Extractor",
    "Format",
    "ReaderKilled",
    "TakesLong",
    "TextChunk",
    "TooMuchWork",
    "UnreadableFile",
    "UnsupportedFile",
    "chunks_of",
]
