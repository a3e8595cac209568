"""End of audio: what llama.cpp adds after the last sample, and what is heard instead."""

import ctypes
from dataclasses import dataclass
from typing import Self

import llama_cpp.mtmd_cpp as mtmd
import numpy as np

from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.model_files import GgufHeader, audio_projector_types

_WINDOWED = {"glma", "meralion", "musicflamingo", "qwen2.5o", "qwen2a", "ultravox", "voxtral"}
_WINDOW_S = 30
_FILLED = {"qwen3a"}


@dataclass(frozen=True, kw_only=True)
class AudioEnd:
    """The end of audio for one projector. `is_windowed`: it is encoded in windows of 30 s, and if
    it fills the last one, llama.cpp adds one of silence. `is_filled`: llama.cpp fills the last
    second with frames that are not silence, and counts these as audio."""

    is_windowed: bool
    is_filled: bool

    @classmethod
    def of(cls, header: GgufHeader) -> Self:
        """The end of audio for the projector with this header."""
        kinds = audio_projector_types(header)
        return cls(
            is_windowed=not kinds.isdisjoint(_WINDOWED), is_filled=not kinds.isdisjoint(_FILLED)
        )

    def count_windows(self, audio: Handle, rate_hz: int) -> int | None:
        """Counts the windows with samples of the audio; None if it has no windows."""
        if not self.is_windowed:
            return None
        samples: int = mtmd.mtmd_bitmap_get_nx(audio)
        return -(-samples // (_WINDOW_S * rate_hz))

    def fill(self, audio: Handle, rate_hz: int) -> Handle:
        """Returns the audio with silence to the end of its last second, less the sample with which
        llama.cpp would begin another one. The audio that is not returned is freed."""
        if not self.is_filled:
            return audio
        samples: int = mtmd.mtmd_bitmap_get_nx(audio)
        filled = np.zeros(-(-samples // rate_hz) * rate_hz - 1, dtype=np.float32)
        data = ctypes.string_at(mtmd.mtmd_bitmap_get_data(audio), samples * filled.itemsize)
        length = min(samples, len(filled))
        filled[:length] = np.frombuffer(data, dtype=np.float32)[:length]
        mtmd.mtmd_bitmap_free(audio)
        pointer = filled.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        return mtmd.mtmd_bitmap_init_from_audio(len(filled), pointer)
