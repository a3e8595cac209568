"""Media (pictures and sounds) in messages: decodes clients' files to the engine's input.

values.py    a picture or a sound of a message
reader.py    decodes them within limits, with a cache
pictures.py  pixels of a picture's file
sounds.py    duration of a sound's file
web.py       pictures fetched from allowed hosts
marks.py     placeholders of media while a template renders the messages
"""

from llm_backend.backends.local.media.marks import Marks, UnmarkedPrompt, media_in
from llm_backend.backends.local.media.reader import MediaBounds, MediaReader
from llm_backend.backends.local.media.values import (
    Content,
    DecodedSound,
    MediaPart,
    Picture,
    Sound,
)

__all__ = [
    "Content",
    "DecodedSound",
    "Marks",
    "MediaBounds",
    "MediaPart",
    "MediaReader",
    "Picture",
    "Sound",
    "UnmarkedPrompt",
    "media_in",
]
