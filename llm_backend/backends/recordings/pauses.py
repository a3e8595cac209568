"""Pauses of recordings: audio without speech becomes digital silence, and windows end there."""

import sys
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from llm_backend.backends.speech_detector import FRAME_MS, SpeechDetector

_RATE_HZ = 16_000
_FRAME_BYTES = _RATE_HZ * FRAME_MS // 1000 * 2
_SILENCE = bytes(_FRAME_BYTES)
_LEAST_PAUSE = 5  # frames at which a window may end
_LONG_PAUSE = 2000 // FRAME_MS  # frames that end a window
_MOMENT = 200 // FRAME_MS  # frames of a short pause


@dataclass(frozen=True, kw_only=True)
class SpeechOptions:
    """Options of detection, as those of the document's `server_vad`."""

    threshold: float = 0.5
    prefix_ms: int = 300
    silence_ms: int = 200


class PauseFilter:
    """Replaces audio without speech by digital silence of the same length. Samples are signed, 16
    bits, little-endian, 16 kHz, one channel."""

    def __init__(self, options: SpeechOptions) -> None:
        self._detector = SpeechDetector(
            threshold=options.threshold, silence_ms=options.silence_ms, rate_hz=_RATE_HZ
        )
        self._kept_frames = options.prefix_ms // FRAME_MS + self._detector.onset_frames
        self._kept: deque[bytes] = deque()  # frames that may belong to speech that begins now
        self._rest = b""

    def feed(self, samples: bytes) -> bytes:
        """Returns the samples that are certain to be speech or silence by now, in order."""
        data = self._rest + samples
        whole = len(data) // _FRAME_BYTES * _FRAME_BYTES
        self._rest = data[whole:]
        frames = (data[start : start + _FRAME_BYTES] for start in range(0, whole, _FRAME_BYTES))
        return b"".join(decided for frame in frames for decided in self._add(frame))

    def finish(self) -> bytes:
        """Returns the remaining samples: all that `feed` was not certain of."""
        rest = self._rest if self._detector.is_speech else bytes(len(self._rest))
        return _SILENCE * len(self._kept) + rest

    def _add(self, frame: bytes) -> Iterator[bytes]:
        was_speech = self._detector.is_speech
        change = self._detector.add(_to_native_order(frame))
        if was_speech:
            yield frame
            return
        self._kept.append(frame)
        if change == "started":
            yield from self._kept
            self._kept.clear()
        elif len(self._kept) > self._kept_frames:
            self._kept.popleft()
            yield _SILENCE


def _to_native_order(frame: bytes) -> bytes:
    if sys.byteorder == "little":
        return frame
    samples = array("h", frame)
    samples.byteswap()
    return samples.tobytes()


def bytes_until_pause(window: bytes, *, is_last: bool) -> int | None:
    """Returns the number of bytes to cut from a window: its silence at the beginning, else up to
    its first long pause, else up to its last pause. None if no pause fits: the caller takes all of
    the last window (`is_last`), or cuts elsewhere."""
    pauses = list(_pauses(window))
    if not pauses:
        return None
    first_start, first_end = pauses[0]
    if first_start == 0:
        return min(first_end * _FRAME_BYTES, len(window))
    long = next((start for start, end in pauses if end - start >= _LONG_PAUSE), None)
    if long is not None:
        return long * _FRAME_BYTES
    last_start, last_end = pauses[-1]
    is_inside = last_end * _FRAME_BYTES < len(window)
    return None if is_last and is_inside else last_start * _FRAME_BYTES


def _pauses(window: bytes) -> Iterator[tuple[int, int]]:
    """Yields the first frame of each pause, and the first one after it."""
    start = None
    count = -(-len(window) // _FRAME_BYTES)
    for number in range(count + 1):
        frame = window[number * _FRAME_BYTES : (number + 1) * _FRAME_BYTES]
        is_silent = number < count and not frame.strip(b"\0")
        if is_silent and start is None:
            start = number
        elif not is_silent and start is not None:
            if number - start >= _LEAST_PAUSE or number == count or start == 0:
                yield start, number
            start = None


def bytes_until_quietest(window: bytes) -> int:
    """Returns the number of bytes until the quietest moment in the last third of a window: the
    last of equally quiet moments."""
    first = len(window) // _FRAME_BYTES * 2 // 3
    frames = range(first, len(window) // _FRAME_BYTES)
    loudness = [_loudness(window, frame) for frame in frames]
    count = len(loudness) - _MOMENT + 1
    if count < 1:
        return len(window)
    moments = [(sum(loudness[at : at + _MOMENT]), -at) for at in range(count)]
    _, at = min(moments)
    return (first - at + _MOMENT // 2) * _FRAME_BYTES


def _loudness(window: bytes, frame: int) -> int:
    samples = array(
        "h", _to_native_order(window[frame * _FRAME_BYTES : (frame + 1) * _FRAME_BYTES])
    )
    return sum(map(abs, samples))
