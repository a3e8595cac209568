"""Spectrogram of a window of audio, in the memory of llama.cpp, which has no function to change it.

llama.cpp encodes as many frames as the spectrogram has. The structures below are those of the
version that `pyproject.toml` pins. Their sizes are compared with what the functions of the library
return before anything is read or written.
"""

import ctypes
from collections.abc import Generator
from dataclasses import dataclass
from typing import Self

import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.media_runs import MediaError


class _NativeVector(ctypes.Structure):
    """A `std::vector`."""

    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("capacity", ctypes.c_void_p),
    )

    @property
    def size_bytes(self) -> int:
        """The bytes of its items."""
        return int(self.end or 0) - int(self.begin or 0)


class _NativeWindow(ctypes.Structure):
    """The values of one window: `height` rows of `width` frames, in float32."""

    _fields_ = (
        ("flags", ctypes.c_bool * 2),
        ("lead_pad", ctypes.c_int32),
        ("tiles", ctypes.c_int * 4),
        ("values", _NativeVector),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
    )


class _AudioTokens(ctypes.Structure):
    """The audio of a chunk: its windows, and how many embeddings they have."""

    _fields_ = (
        ("embeddings", ctypes.c_uint32),
        ("windows", _NativeVector),
        ("is_audio", ctypes.c_bool),
    )


class _NativeChunk(ctypes.Structure):
    """A piece of a prompt: text, an image or audio."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("text", _NativeVector),
        ("image", ctypes.c_void_p),
        ("audio", ctypes.POINTER(_AudioTokens)),
    )


@dataclass(frozen=True, kw_only=True)
class Spectrogram:
    """The spectrogram of a chunk of audio, which has one window."""

    audio: _AudioTokens
    frames: _NativeWindow

    @classmethod
    def of(cls, chunk: Handle) -> Self:
        """The spectrogram of a chunk, which must outlive it. Raises `MediaError` for a library
        with other structures."""
        found = ctypes.cast(chunk, ctypes.POINTER(_NativeChunk)).contents
        if (
            found.type != mtmd.MTMD_INPUT_CHUNK_TYPE_AUDIO
            or found.image
            or not found.audio
            or found.audio.contents.embeddings != mtmd.mtmd_input_chunk_get_n_tokens(chunk)
            or found.audio.contents.windows.size_bytes != ctypes.sizeof(_NativeWindow)
        ):
            raise _unknown_structure()
        audio = found.audio.contents
        frames = ctypes.cast(audio.windows.begin, ctypes.POINTER(_NativeWindow)).contents
        expected_bytes = frames.width * frames.height * ctypes.sizeof(ctypes.c_float)
        if not 0 < expected_bytes == frames.values.size_bytes:
            raise _unknown_structure()
        return cls(audio=audio, frames=frames)

    @property
    def values(self) -> NDArray[np.float32]:
        """The values in native memory: [mels, frames] float32."""
        start = ctypes.cast(self.frames.values.begin, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(start, shape=(self.frames.height, self.frames.width))

    def replace(self, values: NDArray[np.float32], *, embeddings: int) -> None:
        """Replaces the values by others of no more frames: [mels, frames] float32, of which
        llama.cpp makes this number of embeddings."""
        assert values.shape[1] <= self.frames.width, "native memory has room for them"
        self._write(values, embeddings=embeddings)

    def blocks(self, frames: int, *, frames_per_embedding: int) -> Generator[bool]:
        """Replaces the values by those of one block after the other, without those that have no
        embedding. Yields whether a block is the last one, and restores the values at the end."""
        whole, embeddings = self.values.copy(), int(self.audio.embeddings)
        try:
            for start in range(0, whole.shape[1], frames):
                block = whole[:, start : start + frames]
                count = block.shape[1] // frames_per_embedding
                if count:
                    self._write(block, embeddings=count)
                    yield start + frames >= whole.shape[1]
        finally:
            self._write(whole, embeddings=embeddings)

    def _write(self, values: NDArray[np.float32], *, embeddings: int) -> None:
        mels, frames = values.shape
        assert mels == self.frames.height, "the number of mels is the model's"
        copied = np.ascontiguousarray(values, dtype=np.float32)
        ctypes.memmove(self.frames.values.begin, copied.ctypes.data, copied.nbytes)
        self.frames.values.end = self.frames.values.begin + copied.nbytes
        self.frames.width = frames
        self.audio.embeddings = embeddings


def _unknown_structure() -> MediaError:
    return MediaError("The audio cannot be read: this llama.cpp is not the version that is needed.")
