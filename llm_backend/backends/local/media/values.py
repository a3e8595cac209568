"""What stands in a message besides text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_backend.engine.messages import Medium

__all__ = ["Content", "Picture", "Shown", "Sound"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that `url` holds, as base64; `detail` says how closely it is looked at. `where`
    names it in the request."""

    medium: ClassVar[Medium] = Medium.PICTURE

    url: str
    detail: str = "auto"
    where: str


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A sound as a file in base64, of the `format` `wav` or `mp3`. `where` names it in the
    request."""

    medium: ClassVar[Medium] = Medium.SOUND

    data: str
    format: str
    where: str


Shown = Picture | Sound

Content = str | Sequence[str | Shown] | None
"""What a message says: text, or texts with pictures and sounds between them."""
