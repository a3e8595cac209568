"""Pictures and sounds in messages: as clients send them -> as the engine takes them in."""

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
