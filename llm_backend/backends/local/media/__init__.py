"""Media (pictures and sounds) in messages: decodes clients' files to the engine's input."""

from llm_backend.backends.local.media.marks import Marks, UnmarkedPrompt
from llm_backend.backends.local.media.reader import MediaBounds, MediaReader
from llm_backend.backends.local.media.values import Content, MediaFile, Picture, Sound

__all__ = [
    "Content",
    "Marks",
    "MediaBounds",
    "MediaFile",
    "MediaReader",
    "Picture",
    "Sound",
    "UnmarkedPrompt",
]
