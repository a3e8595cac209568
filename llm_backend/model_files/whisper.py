"""Whisper files in the format of whisper.cpp: recognition, sizes and memory."""

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llm_backend.model_files.header import TENSOR_BLOCKS, HeaderError

_MAGIC = 0x67676D6C
_HEAD_LAYOUT = struct.Struct("<I11i")
_MULTILINGUAL_TOKENS = 51_865  # an English vocabulary is smaller
_NAME = re.compile(r"(^|/)ggml-[^/]*\.bin$", re.IGNORECASE)
_MAX_SIZE = 1 << 20  # of any size in the head
_HALF_BYTES, _FLOAT_BYTES = 2, 4
_TENSORS, _ENCODER_TENSORS, _DECODER_TENSORS = 11, 15, 24  # outside the layers, and in each
_MAX_DIMENSIONS = 4
_DECODERS = 5  # that the native code runs in parallel to transcribe a window again


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
        """True if the model knows languages other than English."""
        return self.tokens >= _MULTILINGUAL_TOKENS

    @property
    def languages(self) -> str:
        """Its languages, in words."""
        return "many languages" if self.is_multilingual else "English"

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
    """Returns True if the file begins with the magic number of Whisper files; False if it cannot be
    read."""
    try:
        with path.open("rb") as file:
            return file.read(4) == struct.pack("<I", _MAGIC)
    except OSError:
        return False


def read_whisper_header(path: Path) -> WhisperHeader:
    """Reads the sizes of a model. Raises `HeaderError`."""
    try:
        with path.open("rb") as file:
            head, size = file.read(_HEAD_LAYOUT.size), path.stat().st_size
            if len(head) < _HEAD_LAYOUT.size:
                raise HeaderError(f"{path} ends in the middle of its header.")
            header = _header_of(path, head, size)
            _WhisperFileParts(path, file, size).check(_tensors_of(header))
            return header
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error


def _header_of(path: Path, head: bytes, size: int) -> WhisperHeader:
    magic, tokens, positions, width, _, layers, texts, text_width, _, text_layers, *_ = (
        _HEAD_LAYOUT.unpack(head)
    )
    sizes = (tokens, positions, width, layers, texts, text_width, text_layers)
    if magic != _MAGIC or not all(0 < one < _MAX_SIZE for one in sizes):
        raise HeaderError(f"{path} is not a Whisper model of whisper.cpp.")
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


def _tensors_of(header: WhisperHeader) -> int:
    return _TENSORS + _ENCODER_TENSORS * header.audio_layers + _DECODER_TENSORS * header.text_layers


class _WhisperFileParts:
    """Parts of a file after its sizes: filters, vocabulary, tensors. The parts follow each other
    without a table."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self._path = path
        self._file = file
        self._size = size

    def check(self, tensors: int) -> None:
        """Checks all parts. Raises `HeaderError` if the file has fewer than `tensors` tensors."""
        mels, frequencies = self._numbers(2, "filters")
        self._skip(mels * frequencies * _FLOAT_BYTES, "filters")
        (words,) = self._numbers(1, "vocabulary")
        for _ in range(words):
            (length,) = self._numbers(1, "vocabulary")
            self._skip(length, "vocabulary")
        for _ in range(tensors):
            self._skip_tensor()

    def _skip_tensor(self) -> None:
        dimensions, name_bytes, kind = self._numbers(3, "tensors")
        if not 0 < dimensions <= _MAX_DIMENSIONS or kind not in TENSOR_BLOCKS:
            raise HeaderError(f"{self._path} is broken: it has a tensor of an unknown form.")
        numbers = math.prod(self._numbers(dimensions, "tensors"))
        block_elements, block_bytes = TENSOR_BLOCKS[kind]
        self._skip(name_bytes + numbers // block_elements * block_bytes, "tensors")

    def _numbers(self, count: int, part: str) -> tuple[int, ...]:
        layout = struct.Struct(f"<{count}i")
        data = self._file.read(layout.size)
        if len(data) < layout.size:
            raise self._truncation_error(part)
        return layout.unpack(data)

    def _skip(self, count: int, part: str) -> None:
        if count < 0 or self._file.tell() + count > self._size:
            raise self._truncation_error(part)
        self._file.seek(count, 1)

    def _truncation_error(self, part: str) -> HeaderError:
        return HeaderError(
            f"{self._path} is cut short: its {part} would end beyond its {self._size:,} bytes; "
            "copy or download it again."
        )
