"""Formats of sound in realtime sessions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class SoundFormat:
    """A format of one channel. `encoding` is the name of this server's encoder."""

    encoding: Literal["pcm", "mulaw", "alaw"]
    rate_hz: int
    sample_bytes: int

    def duration_ms(self, size: int) -> int:
        """Returns the duration of a number of bytes."""
        return size * 1000 // (self.rate_hz * self.sample_bytes)


PCM = SoundFormat(encoding="pcm", rate_hz=24_000, sample_bytes=2)
_FORMATS: Mapping[str, SoundFormat] = {
    "audio/pcm": PCM,
    "audio/pcmu": SoundFormat(encoding="mulaw", rate_hz=8_000, sample_bytes=1),
    "audio/pcma": SoundFormat(encoding="alaw", rate_hz=8_000, sample_bytes=1),
}


def sound_format(described: JsonMapping) -> SoundFormat:
    """Returns the format of the document's object."""
    return _FORMATS[described["type"]]
