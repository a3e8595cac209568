"""Input audio: the buffer of what a client sends, and detection of turns in it."""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.controllers.realtime.audio_formats import AudioFormat
from llm_backend.controllers.realtime.turn_detection import TurnChange, TurnDetector
from llm_backend.errors import InvalidRequest, TooLarge
from llm_backend.json_types import JsonMapping

_MIN_TURN_MS = 100  # shortest turn that can be committed
_WAV_TAGS = {"pcm": 1, "alaw": 6, "mulaw": 7}


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Audio of a turn as a WAV file."""

    wav: bytes
    duration_s: float


class InputAudio:
    """Buffer of at most `limit_s` seconds. With `turns` (the fields of `server_vad`) it detects
    speech, and drops the audio before it."""

    def __init__(self, format: AudioFormat, turns: JsonMapping | None, *, limit_s: int) -> None:
        self._format = format
        self._limit_ms = limit_s * 1000
        self._buffer = bytearray()
        self.start_ms = 0  # of the buffer, since the first audio
        self._turns = turns
        self._detector = self._new_detector()

    def configure(self, format: AudioFormat, turns: JsonMapping | None) -> None:
        """Changes the format and the detection of turns; a turn in progress continues. Raises
        `InvalidRequest` for another format while the buffer has audio."""
        if format != self._format and self._buffer:
            raise InvalidRequest(
                "The format cannot change while there is audio in the buffer.",
                param="session.audio.input.format",
            )
        is_changed = (format, turns) != (self._format, self._turns)
        self._format, self._turns = format, turns
        if is_changed:
            self._detector = self._new_detector(is_speech=self.is_speech)

    @property
    def is_speech(self) -> bool:
        """True within a detected turn."""
        return self._detector is not None and self._detector.is_speech

    @property
    def length_ms(self) -> int:
        """The duration of the buffer."""
        return self._format.duration_ms(len(self._buffer))

    def append(self, text: str) -> Sequence[TurnChange]:
        """Adds audio in base64, and returns the beginnings and ends of turns in it. Raises
        `InvalidRequest`, and `TooLarge` beyond the limit."""
        audio = _decode(text, self._format, "audio")
        if self.length_ms + self._format.duration_ms(len(audio)) > self._limit_ms:
            raise TooLarge(
                f"The buffer holds at most {self._limit_ms // 1000} s of audio: commit or clear "
                "it.",
                param="audio",
                code="input_audio_buffer_full",
            )
        self._buffer += audio
        if self._detector is None:
            return ()
        changes = self._detector.feed(audio)
        if not changes and not self._detector.is_speech:
            self.drop_before(self._end_ms - self._detector.kept_ms)
        return changes

    def turn(self, end_ms: int | None = None) -> Turn:
        """Returns the audio until the time `end_ms`, or all for None. Raises `InvalidRequest` if it
        is shorter than a turn."""
        length_ms = self.length_ms if end_ms is None else end_ms - self.start_ms
        if length_ms < _MIN_TURN_MS:
            raise InvalidRequest(
                f"The buffer has {length_ms} ms of audio; a turn needs at least {_MIN_TURN_MS}.",
                code="input_audio_buffer_commit_empty",
            )
        return _turn_of(bytes(self._buffer[: self._bytes_of(length_ms)]), self._format)

    def remove_turn(self, end_ms: int | None) -> None:
        """Drops the audio that `turn` returns for this end."""
        if end_ms is None:
            self.clear()
        else:
            self.drop_before(end_ms)

    def drop_before(self, at_ms: int) -> None:
        """Drops the audio before the time `at_ms`."""
        self._drop(self._bytes_of(max(0, at_ms - self.start_ms)))

    def clear(self) -> None:
        """Drops all audio."""
        self._drop(len(self._buffer))
        self._detector = self._new_detector()

    @property
    def _end_ms(self) -> int:
        return self.start_ms + self.length_ms

    def _new_detector(self, *, is_speech: bool = False) -> TurnDetector | None:
        if self._turns is None:
            return None
        return TurnDetector(self._turns, self._format, self._end_ms, is_speech=is_speech)

    def _drop(self, size: int) -> None:
        size = min(size, len(self._buffer))
        self.start_ms += self._format.duration_ms(size)
        del self._buffer[:size]

    def _bytes_of(self, duration_ms: int) -> int:
        return self._format.rate_hz * duration_ms // 1000 * self._format.sample_bytes


def decode_turn(text: str, format: AudioFormat, *, limit_s: int, where: str) -> Turn:
    """Returns the turn of an audio in base64; `where` is its path. Raises `InvalidRequest` and
    `TooLarge`."""
    audio = _decode(text, format, where)
    duration_ms = format.duration_ms(len(audio))
    if duration_ms > limit_s * 1000:
        raise TooLarge(
            f"The audio lasts {duration_ms} ms; an item may hold at most {limit_s} s.", param=where
        )
    if duration_ms < _MIN_TURN_MS:
        raise InvalidRequest(
            f"The audio lasts {duration_ms} ms; a turn must have at least {_MIN_TURN_MS}.",
            param=where,
        )
    return _turn_of(audio, format)


def _decode(text: str, format: AudioFormat, where: str) -> bytes:
    try:
        audio = base64.b64decode(text, validate=True)
    except ValueError as error:  # also for text that is not ASCII
        raise InvalidRequest("The audio is not base64.", param=where) from error
    if len(audio) % format.sample_bytes:
        raise InvalidRequest("The audio ends within a sample.", param=where)
    return audio


def _turn_of(audio: bytes, format: AudioFormat) -> Turn:
    duration_s = format.duration_ms(len(audio)) / 1000
    return Turn(wav=wav_file(audio, format), duration_s=duration_s)


def wav_file(audio: bytes, format: AudioFormat) -> bytes:
    """Returns a WAV file with samples of one channel."""
    size, rate_hz = format.sample_bytes, format.rate_hz
    tag = _WAV_TAGS[format.encoding]
    described = struct.pack("<HHIIHH", tag, 1, rate_hz, rate_hz * size, size, 8 * size)
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(audio), b"WAVE", b"fmt ", len(described))
    return head + described + struct.pack("<4sI", b"data", len(audio)) + audio
