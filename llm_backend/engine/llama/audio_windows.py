"""Windows of audio: what llama.cpp makes of samples, and what the model hears instead.

llama.cpp encodes models with an encoder like Whisper's in windows of 30 s, and fills the last one
with silence. The reference implementations of some of them encode only what the audio fills: the
frames after it are removed, so that there are fewer embeddings and less to encode. The encoder of
Qwen2.5-Omni hears blocks of 2 s apart, so these are encoded one after the other.

The spectrogram of llama.cpp has a floor of 6e-8, those of the references one of 1e-10. So samples
are amplified before, and the logarithms are reduced afterwards. A power of two changes no sample.
Gemma 4 adds its floor of 1e-3 to a magnitude; llama.cpp takes the larger one of both. Amplified as
well, the logarithm is almost that of the magnitude, and the floor is added to this.

MERaLiON hears windows of normalized samples, each with a spectrogram of its own. So llama.cpp gets
each as audio of its own, and adds silence after those that are whole.
"""

import ctypes
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Self

import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama.audio_bitmap import audio_bitmap
from llm_backend.engine.llama.convolution_end import LastFrame
from llm_backend.engine.llama.spectrogram import Spectrogram
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.model_files import GgufHeader, audio_projector_types

Samples = NDArray[np.float32]

_WINDOWED = {"glma", "meralion", "musicflamingo", "qwen2.5o", "qwen2a", "ultravox", "voxtral"}
_SHORTENED = {"musicflamingo", "qwen2.5o", "qwen2a"}
_STACKED = {"ultravox"}
_WITH_NEXT_FRAME = {"musicflamingo", "qwen2a"}
_FILLED = {"qwen3a"}
_ENDED = {"glma"}
_IN_BLOCKS = {"qwen2.5o"}
_WITH_ADDED_FLOOR = {"gemma4a"}
_CONFORMER = {"lfm2a"}
_NORMALIZED = {"meralion"}
_WINDOW_FRAMES = 3000
_BLOCK_FRAMES = 200
_FRAMES_PER_SECOND = 100
_FRAMES_PER_POSITION = 2  # of the encoder
_SAMPLE_BYTES = 4
_COUNTED_TENSOR = "a.position_embd.weight"
_LEAST_CONFORMER_FRAMES = 2  # of fewer llama.cpp computes no deviation, and ends the process
_MIRRORED_SAMPLES = 200  # half of what a frame is computed from
_GAIN = 32.0  # 6e-8 / 32**2 is below 1e-10
_GAIN_IN_SPECTROGRAM = 2 * math.log10(_GAIN) / 4
_ADDED_FLOOR = 1e-3
_ADDED_FLOOR_GAIN = 4096.0
_LEAST_VARIANCE = 1e-7
_FLOOR_IN_SPECTROGRAM = (math.log10(1e-10) + 4) / 4


@dataclass(frozen=True, kw_only=True)
class AudioLength:
    """The number of chunks that have audio; None for all. `has_silence_between`: each of them but
    the last one is followed by one of silence. `last_frame` is what a convolution of the
    last chunk sees after its frames, if that is not nothing. `silent_embeddings`: those of the last
    chunk that the model does not hear, as they are of the silence after the audio."""

    windows: int | None = None
    has_silence_between: bool = False
    last_frame: LastFrame | None = None
    silent_embeddings: int = 0

    def has_audio(self, chunk: int) -> bool:
        """True for the number of a chunk that the model hears."""
        window, rest = divmod(chunk, 2) if self.has_silence_between else (chunk, 0)
        return self.windows is None or (window < self.windows and not rest)


@dataclass(frozen=True, kw_only=True)
class AudioWindows:
    """The windows of audio for one projector.

    `is_windowed`: llama.cpp encodes windows of 30 s, and if audio fills the last one, it adds one
    of silence. `frames_per_embedding`: the last window ends with the audio; None if it is encoded
    as a whole. `is_stacked`: every embedding joins this number of frames, so the audio is filled
    with silence to the end of one. `has_next_frame`: the first convolution of the reference sees
    the frame after the last one. `block_frames`: blocks of this number of frames are encoded apart,
    and zeros follow the frames of the last one in each convolution; `encoder_size` is the number of
    channels between these. `stacked_positions`: a window is encoded as a whole, and the model hears
    its embeddings that the audio fills, each of this number of positions. `is_filled`: llama.cpp
    fills the last second with frames that are not silence, and counts these as audio. `adds_floor`:
    a floor is added to the values of the spectrogram. `least_frames`: llama.cpp computes no fewer,
    so silence follows shorter audio. `is_normalized`: the samples of a window get a mean of 0
    and a variance of 1, and are audio of their own."""

    is_windowed: bool
    is_filled: bool
    is_stacked: bool = False
    frames_per_embedding: int | None = None
    has_next_frame: bool = False
    stacked_positions: int | None = None
    block_frames: int | None = None
    encoder_size: int = 0
    adds_floor: bool = False
    least_frames: int = 0
    is_normalized: bool = False

    @classmethod
    def of(cls, header: GgufHeader) -> Self:
        """The windows of audio for the projector with this header."""
        kinds = audio_projector_types(header)
        is_stacked = not kinds.isdisjoint(_STACKED)
        frames = None
        stack = int(header.values.get("clip.audio.projector.stack_factor", 1))
        if is_stacked:
            frames = _FRAMES_PER_POSITION * stack
        elif not kinds.isdisjoint(_SHORTENED):
            frames = 2 * _FRAMES_PER_POSITION  # an average of two positions is one embedding
        return cls(
            is_windowed=not kinds.isdisjoint(_WINDOWED),
            is_filled=not kinds.isdisjoint(_FILLED),
            is_stacked=is_stacked,
            frames_per_embedding=frames,
            has_next_frame=not kinds.isdisjoint(_WITH_NEXT_FRAME),
            stacked_positions=None if kinds.isdisjoint(_ENDED) else stack,
            block_frames=None if kinds.isdisjoint(_IN_BLOCKS) else _BLOCK_FRAMES,
            adds_floor=not kinds.isdisjoint(_WITH_ADDED_FLOOR),
            encoder_size=int(header.values.get("clip.audio.embedding_length", 0)),
            least_frames=0 if kinds.isdisjoint(_CONFORMER) else _LEAST_CONFORMER_FRAMES,
            is_normalized=not kinds.isdisjoint(_NORMALIZED),
        )

    @property
    def changes_convolutions(self) -> bool:
        """True if a convolution may see a frame after the last one."""
        return self.has_next_frame or self.block_frames is not None

    @property
    def _gain(self) -> float:
        """The number that samples are multiplied by."""
        if self.adds_floor:
            return _ADDED_FLOOR_GAIN
        return _GAIN if self.is_windowed or self.is_filled else 1

    @property
    def _window_frames(self) -> int:
        """The frames of a whole window. llama.cpp computes no stack that is cut by its end."""
        if self.is_stacked and self.frames_per_embedding is not None:
            return _WINDOW_FRAMES // self.frames_per_embedding * self.frames_per_embedding
        return _WINDOW_FRAMES

    @contextmanager
    def prepare(self, audio: Handle, rate_hz: int) -> Iterator[Sequence[Handle]]:
        """Yields the audio as llama.cpp is to be given it: amplified, with silence after it, and
        in windows if these have spectrograms of their own."""
        count: int = mtmd.mtmd_bitmap_get_nx(audio)
        least = self.least_frames * rate_hz // _FRAMES_PER_SECOND
        if self._gain == 1 and count >= least:
            yield [audio]
            return
        data = ctypes.string_at(mtmd.mtmd_bitmap_get_data(audio), count * _SAMPLE_BYTES)
        samples = np.frombuffer(data, dtype=np.float32)
        if self.is_normalized or self.adds_floor:
            samples = _without_remainder(samples, rate_hz)
        with ExitStack() as bitmaps:
            prepared = []
            for heard in self._windows(samples, rate_hz):
                amplified = heard * np.float32(self._gain)
                filled = self._fill(_resize(amplified, max(len(heard), least)), rate_hz)
                prepared.append(bitmaps.enter_context(audio_bitmap(filled)))
            yield prepared

    def _windows(self, samples: Samples, rate_hz: int) -> Sequence[Samples]:
        """Returns the samples, or their windows if these are normalized."""
        if not self.is_normalized:
            return [samples]
        size = _WINDOW_FRAMES * rate_hz // _FRAMES_PER_SECOND
        return [_normalize(one) for one in np.split(samples, range(size, len(samples), size))]

    def finish(self, chunks: Sequence[Handle], samples: int, rate_hz: int) -> AudioLength:
        """Changes the chunks of audio that `prepare` was given with this number of samples. Raises
        `MediaError`."""
        if self._gain == 1:
            return AudioLength()
        spectrograms = [Spectrogram.of(chunk) for chunk in chunks]
        if self.adds_floor:
            for one in spectrograms:
                _add_floor(one.values)
            return AudioLength()
        for one in spectrograms:
            values = one.values
            np.maximum(values - np.float32(_GAIN_IN_SPECTROGRAM), _FLOOR_IN_SPECTROGRAM, out=values)
        if not self.is_windowed:
            return AudioLength()
        frames = self._frames(samples, rate_hz)
        windows = -(-frames // self._window_frames)
        last_frame = None
        if self.frames_per_embedding is not None:
            joined = np.concatenate([one.values for one in spectrograms], axis=1)
            last_frame = self._divide(joined, frames, spectrograms[:windows])
        return AudioLength(
            windows=windows,
            has_silence_between=self.is_normalized,
            last_frame=last_frame,
            silent_embeddings=self._silent_embeddings(frames - (windows - 1) * _WINDOW_FRAMES),
        )

    def _silent_embeddings(self, frames: int) -> int:
        """The embeddings of silence of a window in which the audio has this number of frames."""
        if self.stacked_positions is None:
            return 0
        whole = _WINDOW_FRAMES // _FRAMES_PER_POSITION // self.stacked_positions
        positions = -(-frames // _FRAMES_PER_POSITION)
        return whole - max(1, positions // self.stacked_positions)

    def _divide(
        self, values: Samples, frames: int, spectrograms: Sequence[Spectrogram]
    ) -> LastFrame | None:
        """Divides the frames that the audio fills among windows. Returns what a convolution sees
        after them."""
        assert self.frames_per_embedding is not None, "the last window ends with the audio"
        end = -(-frames // _FRAMES_PER_POSITION) * _FRAMES_PER_POSITION
        if self.block_frames is not None:
            values[:, frames:] = 0
        count = 0
        for number, one in enumerate(spectrograms):
            start = number * self._window_frames
            part = values[:, start : min(start + self._window_frames, end)]
            count = part.shape[1]
            one.replace(part, embeddings=count // self.frames_per_embedding)
        if self.has_next_frame and count < self._window_frames:
            return LastFrame(convolution=0, outputs=count, values=values[:, end].copy())
        return self._zeros_after(count) if end > frames else None

    def _zeros_after(self, frames: int) -> LastFrame | None:
        """Returns the zeros that the second convolution sees after the frames of the last window,
        of which the last one is not of the audio."""
        if self.block_frames is None:
            return None
        in_block = (frames - 1) % self.block_frames + 1
        return LastFrame(
            convolution=1,
            outputs=in_block // _FRAMES_PER_POSITION,
            values=np.zeros(self.encoder_size, dtype=np.float32),
        )

    def _fill(self, heard: Samples, rate_hz: int) -> Samples:
        """The samples with what follows them: silence, or the mirrored end if the references
        compute no frames after it."""
        if not self.is_filled and not self.is_windowed:
            return heard
        if self.is_filled:  # llama.cpp would begin another second with one sample more
            return _resize(heard, -(-len(heard) // rate_hz) * rate_hz - 1)
        frame_samples = rate_hz // _FRAMES_PER_SECOND
        if not self.is_stacked:
            is_whole = len(heard) % (_WINDOW_FRAMES * frame_samples) == 0
            if not is_whole or self.block_frames is not None:
                return heard
            return np.pad(heard, (0, _MIRRORED_SAMPLES), mode="reflect")
        frames = self._frames(len(heard), rate_hz)
        filled = np.pad(
            _resize(heard, frames * frame_samples), (0, _MIRRORED_SAMPLES), mode="reflect"
        )
        windows = -(-frames // self._window_frames)
        return _resize(filled, max(len(filled), (windows - 1) * _WINDOW_FRAMES * frame_samples))

    def _frames(self, samples: int, rate_hz: int) -> int:
        """The number of frames of which embeddings are made."""
        frames = -(-samples * _FRAMES_PER_SECOND // rate_hz)
        if self.frames_per_embedding is None:
            return frames
        if self.is_stacked:
            return -(-frames // self.frames_per_embedding) * self.frames_per_embedding
        rest = frames % self._window_frames
        least = self.frames_per_embedding - _FRAMES_PER_POSITION
        if frames > rest and rest <= least:  # too short for an embedding
            return frames - rest
        return max(frames, self.frames_per_embedding)


def audio_limit_s(header: GgufHeader, embedding_size: int) -> float:
    """The length of audio that llama.cpp can compute with the projector of this header: that of
    LFM2-Audio ends the process if there are more pairs of frames than rows in a certain tensor."""
    elements = header.tensor_elements.get(_COUNTED_TENSOR, 0)
    if audio_projector_types(header).isdisjoint(_CONFORMER) or not elements:
        return math.inf
    return 2 * (elements // embedding_size) / _FRAMES_PER_SECOND


def _without_remainder(samples: Samples, rate_hz: int) -> Samples:
    """Returns the samples without those after the last whole window, if these are shorter than a
    frame: llama.cpp computes no spectrogram of them, and refuses the audio or ends the process."""
    frame = rate_hz // _FRAMES_PER_SECOND
    remainder = len(samples) % (_WINDOW_FRAMES * frame)
    is_short = 0 < remainder < frame < len(samples)
    return samples[:-remainder] if is_short else samples


def _normalize(window: Samples) -> Samples:
    deviation = np.sqrt(window.var() + np.float32(_LEAST_VARIANCE))
    normalized: Samples = (window - window.mean()) / deviation
    return normalized


def _add_floor(values: Samples) -> None:
    """Adds the floor to magnitudes, which are given as natural logarithms of amplified ones."""
    values[:] = np.log(np.exp(values) / np.float32(_ADDED_FLOOR_GAIN) + np.float32(_ADDED_FLOOR))


def _resize(samples: Samples, count: int) -> Samples:
    """The first samples, with silence after them if there are fewer than `count`."""
    found = np.zeros(count, dtype=np.float32)
    length = min(count, len(samples))
    found[:length] = samples[:length]
    return found
