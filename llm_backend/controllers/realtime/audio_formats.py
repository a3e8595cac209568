"""Formats of audio in realtime sessions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class AudioFormat:
    """A format of one channel. `encoding` is the name of this server's encoder."""

    encoding: Literal["pcm", "mulaw", "alaw"]
    rate_hz: int
    sample_bytes: int

    def duration_ms(self, size: int) -> int:
        """Returns the duration of a number of bytes."""
        return size * 1000 // (self.rate_hz * self.sample_bytes)


PCM = AudioFormat(encoding="pcm", rate_hz=24_000, sample_bytes=2)
_FORMATS: Mapping[str, AudioFormat] = {
    "audio/pcm": PCM,
    "audio/pcmu": AudioFormat(encoding="mulaw", rate_hz=8_000, sample_bytes=1),
    "audio/pcma": AudioFormat(encoding="alaw", rate_hz=8_000, sample_bytes=1),
}


def audio_format(described: JsonMapping) -> AudioFormat:
    """Returns the format of the document's object."""
    return _FORMATS[described["type"]]
