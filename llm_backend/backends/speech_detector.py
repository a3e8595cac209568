"""Speech detector: where speech begins and ends in frames of 20 ms.

A frame is speech or not by the detector of WebRTC (the package `webrtcvad-wheels`).
"""

from collections import deque
from typing import Literal

FRAME_MS = 20

_WINDOW, _SPEECH_FRAMES = 6, 4  # speech begins when 4 of 6 frames are speech
_MODES = 4  # modes of the detector, from tolerant to strict


class SpeechDetector:
    """Detects speech in signed 16-bit samples in the machine's byte order, of 8 or 16 kHz. The
    nearer `threshold` is to 1, the stricter is the detector. Speech ends after `silence_ms` of
    silence. With `is_speech` the first frame is within speech."""

    onset_frames = _WINDOW
    """Maximum number of frames between the beginning of speech and its detection."""

    def __init__(
        self, *, threshold: float, silence_ms: int, rate_hz: int, is_speech: bool = False
    ) -> None:
        import webrtcvad  # of an extra

        self._detector = webrtcvad.Vad(min(_MODES - 1, int(threshold * _MODES)))
        self._rate_hz = rate_hz
        self._window: deque[bool] = deque(maxlen=_WINDOW)
        self._silence_frames = max(1, silence_ms // FRAME_MS)
        self._silent_frames = 0
        self.is_speech = is_speech

    def add(self, frame: bytes) -> Literal["started", "stopped"] | None:
        """Returns the change that the next frame makes."""
        is_speech = bool(self._detector.is_speech(frame, self._rate_hz))
        if self.is_speech:
            self._silent_frames = 0 if is_speech else self._silent_frames + 1
            if self._silent_frames < self._silence_frames:
                return None
            self.is_speech = False
            self._window.clear()
            return "stopped"
        self._window.append(is_speech)
        if sum(self._window) < _SPEECH_FRAMES:
            return None
        self.is_speech, self._silent_frames = True, 0
        return "started"
