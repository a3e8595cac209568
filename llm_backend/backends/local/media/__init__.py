"""Media (images and sounds) in messages: decodes clients' files to the engine's input.

values.py    an image or a sound of a message
reader.py    decodes them within limits, with a cache
images.py    pixels of an image's file
sounds.py    duration of a sound's file
web.py       images fetched from allowed hosts
marks.py     placeholders of media while a template renders the messages
"""

from llm_backend.backends.local.media.marks import Marks, UnmarkedPrompt, media_in
from llm_backend.backends.local.media.reader import MediaBounds, MediaReader
from llm_backend.backends.local.media.values import (
    Content,
    DecodedSound,
    Image,
    MediaPart,
    Sound,
)

__all__ = [
    "Content",
    "DecodedSound",
    "Image",
    "Marks",
    "MediaBounds",
    "MediaPart",
    "MediaReader",
    "Sound",
    "UnmarkedPrompt",
    "media_in",
]
