"""Whisper files in the format of whisper.cpp: recognition, sizes and memory."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from llm_backend.model_files.header import HeaderError, read_header

_MAGIC = 0x67676D6C
_HEAD = struct.Struct("<I11i")
_MULTILINGUAL_TOKENS = 51_865  # an English vocabulary is smaller
_NAME = re.compile(r"(^|/)ggml-[^/]*\.bin$", re.IGNORECASE)
_LARGEST = 1 << 20  # of any size in the head
_HALF_BYTES, _FLOAT_BYTES = 2, 4
_LEAST_WEIGHT_BYTES = 0.25  # of a weight; quantized ones have more
_DECODERS = 5  # which the native code runs beside each other where it tries again


@dataclass(frozen=True, kw_only=True)
class WhisperHeader:
    """Sizes of a Whisper model; `file_bytes` is the size of its file."""

    tokens: int
    audio_positions: int
    audio_width: int
    audio_layers: int
    text_positions: int
    text_width: int
    text_layers: int
    file_bytes: int

    @property
    def is_multilingual(self) -> bool:
        """True if it knows other languages than English."""
        return self.tokens >= _MULTILINGUAL_TOKENS

    @property
    def memory_bytes(self) -> int:
        """Memory of a loaded model: weights, states of attention, and buffers of a window."""
        own = self.text_layers * self.text_positions * self.text_width * 2 * _HALF_BYTES
        cross = self.text_layers * self.audio_positions * self.text_width * 2 * _HALF_BYTES
        padding = self.audio_positions * self.audio_width * 2 * _HALF_BYTES
        logits = self.tokens * self.text_positions * _FLOAT_BYTES
        encoder = 12 * self.audio_positions * self.audio_width * _FLOAT_BYTES
        return self.file_bytes + (1 + _DECODERS) * own + cross + padding + logits + encoder


def may_be_whisper(name: str) -> bool:
    """Returns True for the name of a file like those of Whisper models: `ggml-base.bin`."""
    return _NAME.search(name) is not None


def is_whisper_file(path: Path) -> bool:
    """Returns True if the file begins as Whisper files do; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == struct.pack("<I", _MAGIC)
    except OSError:
        return False


def check_model_file(path: Path) -> None:
    """Raises `HeaderError` for a file that is no model, or is truncated."""
    if is_whisper_file(path):
        read_whisper_header(path)
    else:
        read_header(path)


def read_whisper_header(path: Path) -> WhisperHeader:
    """Reads the sizes of a model. Raises `HeaderError`."""
    try:
        with path.open("rb") as file:
            head, size = file.read(_HEAD.size), path.stat().st_size
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(head) < _HEAD.size:
        raise HeaderError(f"{path} ends in the middle of its header.")
    magic, tokens, positions, width, _, layers, texts, text_width, _, text_layers, *_ = (
        _HEAD.unpack(head)
    )
    sizes = (tokens, positions, width, layers, texts, text_width, text_layers)
    if magic != _MAGIC or not all(0 < one < _LARGEST for one in sizes):
        raise HeaderError(f"{path} is no Whisper model of whisper.cpp.")
    weights = width * width * 12 * layers + text_width * text_width * 16 * text_layers
    if size < _LEAST_WEIGHT_BYTES * (weights + tokens * text_width):
        raise HeaderError(f"{path} is cut: {size} bytes are too few for its weights.")
    return WhisperHeader(
        tokens=tokens,
        audio_positions=positions,
        audio_width=width,
        audio_layers=layers,
        text_positions=texts,
        text_width=text_width,
        text_layers=text_layers,
        file_bytes=size,
    )
