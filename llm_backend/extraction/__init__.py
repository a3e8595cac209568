"""The text of files: plain text, source code, Markdown, HTML, PDF, DOCX, JSON and CSV."""

from llm_backend.extraction.errors import (
    ExtractionError,
    TooMuchWork,
    UnreadableFile,
    UnsupportedFile,
)
from llm_backend.extraction.extractor import Extracted, ExtractionLimits, Extractor
from llm_backend.extraction.formats import Format

__all__ = [
    "Extracted",
    "ExtractionError",
    "ExtractionLimits",
    "Extractor",
    "Format",
    "TooMuchWork",
    "UnreadableFile",
    "UnsupportedFile",
]
