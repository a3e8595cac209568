"""Media (images and audio) in messages: decodes clients' files to the engine's input.

values.py          an image or audio of a message
reader.py          decodes them within limits, with a cache
images.py          pixels of an image's file
audio_duration.py  duration of an audio file
web.py             images fetched from allowed hosts
marks.py           placeholders of media while a template renders the messages
"""

from llm_backend.backends.local.media.marks import Marks, UnmarkedPrompt, media_in
from llm_backend.backends.local.media.reader import MediaBounds, MediaReader
from llm_backend.backends.local.media.values import (
    Audio,
    Content,
    DecodedAudio,
    Image,
    MediaPart,
)

__all__ = [
    "Audio",
    "Content",
    "DecodedAudio",
    "Image",
    "Marks",
    "MediaBounds",
    "MediaPart",
    "MediaReader",
    "UnmarkedPrompt",
    "media_in",
]
