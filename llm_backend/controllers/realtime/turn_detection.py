"""Turn detection: where speech begins and ends in a stream of audio."""

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from llm_backend.backends.speech_detector import FRAME_MS, SpeechDetector
from llm_backend.controllers.realtime.audio_formats import AudioFormat
from llm_backend.json_types import JsonMapping

_DETECTOR_HZ = 8_000


@dataclass(frozen=True, kw_only=True)
class TurnChange:
    """Beginning or end of speech, in milliseconds since the session's audio began."""

    kind: Literal["started", "stopped"]
    at_ms: int


class TurnDetector:
    """Detects turns as the document's `server_vad` describes them. `start_ms` is the time of the
    first frame; with `is_speech`, that frame is within a turn."""

    def __init__(
        self, options: JsonMapping, format: AudioFormat, start_ms: int, *, is_speech: bool = False
    ) -> None:
        self._detector = SpeechDetector(
            threshold=options["threshold"],
            silence_ms=options["silence_duration_ms"],
            rate_hz=_DETECTOR_HZ,
            is_speech=is_speech,
        )
        self._format = format
        self._prefix_ms: int = options["prefix_padding_ms"]
        self._first_ms = self._now_ms = start_ms
        self._rest = b""

    @property
    def kept_ms(self) -> int:
        """Milliseconds of audio before the present that may belong to speech that begins now."""
        return self._prefix_ms + self._detector.onset_frames * FRAME_MS

    @property
    def is_speech(self) -> bool:
        """True from the beginning of speech to its end."""
        return self._detector.is_speech

    def feed(self, audio: bytes) -> Sequence[TurnChange]:
        """Returns the changes within this audio."""
        data = self._rest + audio
        size = self._format.rate_hz * self._format.sample_bytes * FRAME_MS // 1000
        whole = len(data) // size * size
        self._rest = data[whole:]
        changes = []
        for start in range(0, whole, size):
            frame = detector_frame(data[start : start + size], self._format)
            self._now_ms += FRAME_MS
            match self._detector.add(frame):
                case "started":
                    at_ms = max(self._first_ms, self._now_ms - self.kept_ms)
                    changes.append(TurnChange(kind="started", at_ms=at_ms))
                case "stopped":
                    changes.append(TurnChange(kind="stopped", at_ms=self._now_ms))
        return changes


def detector_frame(frame: bytes, format: AudioFormat) -> bytes:
    """Returns a frame as 16-bit samples of 8 kHz, in the machine's byte order."""
    if format.encoding != "pcm":
        return array("h", map(_decoding(format.encoding).__getitem__, frame)).tobytes()
    samples = array("h", frame)
    if sys.byteorder == "big":
        samples.byteswap()
    thirds = zip(samples[0::3], samples[1::3], samples[2::3], strict=True)
    return array("h", (sum(third) // 3 for third in thirds)).tobytes()


@cache
def _decoding(encoding: Literal["mulaw", "alaw"]) -> Sequence[int]:
    """Returns G.711's decoding table: the sample of each byte."""
    return [(_mulaw if encoding == "mulaw" else _alaw)(value) for value in range(256)]


def _mulaw(value: int) -> int:
    value ^= 0xFF
    magnitude = (((value & 0x0F) << 3) + 0x84) << ((value & 0x70) >> 4)
    return 0x84 - magnitude if value & 0x80 else magnitude - 0x84


def _alaw(value: int) -> int:
    value ^= 0x55
    exponent = (value & 0x70) >> 4
    magnitude = ((value & 0x0F) << 4) + (8 if exponent == 0 else 0x108)
    magnitude <<= max(0, exponent - 1)
    return magnitude if value & 0x80 else -magnitude
