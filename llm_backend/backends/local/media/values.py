"""Media in a message: images and audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_backend.engine.messages import MediaKind


@dataclass(frozen=True, kw_only=True)
class Image:
    """Image in `url`, as base64; `detail` selects its resolution. `param` names it in the
    request."""

    medium: ClassVar[MediaKind] = MediaKind.IMAGE

    url: str
    detail: str = "auto"
    param: str


@dataclass(frozen=True, kw_only=True)
class Audio:
    """Audio as a file in base64, of the `format` `wav` or `mp3`. `param` names it in the
    request."""

    medium: ClassVar[MediaKind] = MediaKind.AUDIO

    data: str
    format: str
    param: str


@dataclass(frozen=True, kw_only=True)
class DecodedAudio:
    """Audio that this server decoded: a WAV file, which is not cached. `param` is the field of the
    request that it came in."""

    medium: ClassVar[MediaKind] = MediaKind.AUDIO

    data: bytes
    param: str


MediaPart = Image | Audio | DecodedAudio

Content = str | Sequence[str | MediaPart] | None
"""Content of a message: text, or texts with images and audio between them."""
