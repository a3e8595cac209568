"""Windows of a recording, transcribed one after the other; one at a time is in memory."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llm_backend.backends.base import Usage
from llm_backend.backends.recordings.pauses import bytes_until_pause
from llm_backend.engine.messages import SAMPLE_BYTES, SAMPLES_HZ, TranscriptSegment


@dataclass(frozen=True, kw_only=True)
class TranscriptRequest:
    """Options of a transcript; fields as of the engine's `Transcribe`. Without `logprobs` a
    language model computes none."""

    language: str | None = None
    translate: bool = False
    prompt: str = ""
    temperature: float = 0.0
    words: bool = False
    logprobs: bool = False


@dataclass(frozen=True, kw_only=True)
class TranscriptPart:
    """Segments of one window, or some of them, in seconds since the recording began. `end_s` is the
    end of the window, `seek_s` its start. `language` is an English name, empty if it is unknown.
    `usage` is in the last part of a window of a model that counts tokens. `speakers` are the names
    of the segments' speakers, where these are told apart."""

    segments: list[TranscriptSegment]
    language: str
    seek_s: float
    end_s: float
    usage: Usage | None = None
    speakers: Sequence[str] = ()


class Windows(ABC):
    """Cuts a recording into windows of at most `window_s`, and keeps the rest for the next one.
    With `has_pauses`, audio without speech was replaced by digital silence, and windows end
    there."""

    def __init__(self, *, window_s: float, has_pauses: bool) -> None:
        self._window_bytes = round(window_s * SAMPLES_HZ) * SAMPLE_BYTES
        self._has_pauses = has_pauses
        self._buffer = bytearray()
        self._seek_s = 0.0
        self.is_silent = True
        """True while every window was digital silence."""

    async def transcribe(
        self, samples: AsyncIterator[bytes]
    ) -> AsyncGenerator[TranscriptPart, None]:
        """Yields the transcripts of the windows."""
        has_ended = False
        while not has_ended or self._buffer:
            while not has_ended and len(self._buffer) <= self._window_bytes:
                chunk = await anext(samples, b"")
                self._buffer += chunk
                has_ended = not chunk
            if self._buffer:
                is_last = has_ended and len(self._buffer) <= self._window_bytes
                async with aclosing(self._next(is_last=is_last)) as parts:
                    async for part in parts:
                        yield part

    def _next(self, *, is_last: bool) -> AsyncGenerator[TranscriptPart, None]:
        window = bytes(self._buffer[: self._window_bytes])
        speech_bytes = bytes_until_pause(window, is_last=is_last) if self._has_pauses else None
        return self._transcribe_window(window, speech_bytes, is_last=is_last)

    @abstractmethod
    def _transcribe_window(
        self, window: bytes, speech_bytes: int | None, *, is_last: bool
    ) -> AsyncGenerator[TranscriptPart, None]:
        """Yields the transcript of the first `speech_bytes` of a window, which end at a pause
        (None: the implementation chooses how many), and calls `_advance` with their number."""

    def _advance(self, used_bytes: int) -> None:
        del self._buffer[:used_bytes]
        self._seek_s += length_s(used_bytes)


def length_s(sample_bytes: int) -> float:
    """Returns the seconds of these bytes of samples."""
    return sample_bytes / SAMPLE_BYTES / SAMPLES_HZ


def is_silence(window: bytes) -> bool:
    """True for digital silence, for which a model would invent words."""
    return not window.strip(b"\0")
