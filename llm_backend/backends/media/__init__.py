"""Pictures and sounds in messages: as clients send them -> as the engine takes them in."""

from llm_backend.backends.media.marks import Marks, Placed
from llm_backend.backends.media.reader import MediaBounds, MediaReader
from llm_backend.backends.media.values import Content, Picture, Shown, Sound

__all__ = [
    "Content",
    "Marks",
    "MediaBounds",
    "MediaReader",
    "Picture",
    "Placed",
    "Shown",
    "Sound",
]
