"""Media (pictures and sounds) in messages: decodes clients' files to the engine's input."""

from llm_backend.backends.local.media.marks import Marks, PlacedMedia
from llm_backend.backends.local.media.reader import MediaBounds, MediaReader
from llm_backend.backends.local.media.values import Content, Picture, Shown, Sound

__all__ = [
    "Content",
    "Marks",
    "MediaBounds",
    "MediaReader",
    "Picture",
    "PlacedMedia",
    "Shown",
    "Sound",
]
