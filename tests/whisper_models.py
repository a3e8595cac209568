"""Whisper models of random weights in the format of whisper.cpp, so small that a window takes
milliseconds. One that `says` something says it of every window, whatever is heard there."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from llm_backend.extras import is_installed
from tests.missing import missing

__all__ = [
    "BASE",
    "HELLO",
    "TINIEST",
    "Said",
    "Shape",
    "can_transcribe",
    "require_transcription",
    "write_whisper",
]

Said = tuple[float, str, float | None]
"""Start in seconds, words, end in seconds; None if the model does not end the segment."""

HELLO: Sequence[Said] = ((0.0, "Hello world.", 2.0), (2.0, "Grüße an alle!", 3.5))

_MAGIC = 0x67676D6C
_HELD = (b" ", b" -", b" '")  # tokens that whisper.cpp looks for
_ENGLISH_TEXTS, _ENGLISH_TOKENS = 50_256, 51_864
_LANGUAGES, _BEGIN = 50_258, 50_363  # of the English vocabulary
_CODES = ("en", "zh", "de", "es", "ru", "ko", "fr", "ja")  # the first ones, in their order
_MELS, _FREQUENCIES, _AUDIO_POSITIONS, _TEXT_POSITIONS = 80, 201, 1500, 448
_HEAD_WIDTH = 64


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Width and number of layers of the encoder, and of the decoder."""

    width: int
    layers: int


TINIEST = Shape(width=_HEAD_WIDTH, layers=1)
BASE = Shape(width=512, layers=6)
"""The shape of the model that is published as `base`."""


class Weights:
    """Random weights of a shape, smaller the more of them are added up."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape = shape
        self._random = np.random.default_rng(seed)
        self._scale = 0.1 * _HEAD_WIDTH / shape.width / shape.layers

    def normal(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self._random.standard_normal(shape)

    def weights(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        return self.normal(shape) * self._scale


def write_whisper(
    path: Path,
    says: Sequence[Said] | None = HELLO,
    *,
    language: str = "de",
    is_multilingual: bool = True,
    seed: int = 1,
    shape: Shape = TINIEST,
) -> Path:
    """Writes a model. `language` is what it detects. Without `says` all of its weights are
    random."""
    random = Weights(shape, seed)
    width = shape.width
    shift = int(is_multilingual)
    words = _words(says or ())
    tokens = _ENGLISH_TOKENS + shift
    embeddings = random.normal((tokens, width))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    positions = random.normal((_TEXT_POSITIONS, width))
    if says is not None:
        script = _script(says, words, shift)
        if is_multilingual:
            script = {1: _LANGUAGES + shift + _CODES.index(language), **script}
        ending = _ENGLISH_TEXTS + shift
        wanted = [script.get(at + 1, ending) for at in range(_TEXT_POSITIONS)]
        positions = 8 * embeddings[wanted]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        half = (width, width // _HEAD_WIDTH, shape.layers)  # of the encoder, as of the decoder
        _write(file, _MAGIC, tokens, _AUDIO_POSITIONS, *half)
        _write(file, _TEXT_POSITIONS, *half, _MELS, 1)
        _write(file, _MELS, _FREQUENCIES)
        file.write(_mel_filters().astype("<f4").tobytes())
        _write_vocabulary(file, words, _ENGLISH_TEXTS + shift)
        _write_encoder(file, random)
        _write_tensor(file, "decoder.positional_embedding", positions)
        _write_tensor(file, "decoder.token_embedding.weight", embeddings, is_half=True)
        _write_norm(file, "decoder.ln", width, 1.0 if says is None else 6.0)
        for layer in range(shape.layers):
            _write_block(file, f"decoder.blocks.{layer}", random, ("attn", "cross_attn"))
    return path


def _words(says: Sequence[Said]) -> list[bytes]:
    spoken = [b" " + word.encode() for _, text, _ in says for word in text.split()]
    return list(dict.fromkeys((*_HELD, *spoken)))


def _script(says: Sequence[Said], words: Sequence[bytes], shift: int) -> Mapping[int, int]:
    """Returns the token at each position, behind those of start, language and task."""
    tokens: list[int] = []
    for start_s, text, end_s in says:
        tokens.append(_BEGIN + shift + round(start_s * 50))
        tokens += [words.index(b" " + word.encode()) for word in text.split()]
        if end_s is not None:
            tokens.append(_BEGIN + shift + round(end_s * 50))
    first = 3 if shift else 1
    return {first + at: token for at, token in enumerate(tokens)}


def _mel_filters() -> NDArray[np.float64]:
    """Bands of equal width, which are enough for a model of random weights."""
    centers = np.linspace(0, _FREQUENCIES - 1, _MELS + 2)[1:-1, None]
    return np.maximum(0, 1 - np.abs(np.arange(_FREQUENCIES) - centers) / 2.5)


def _write_vocabulary(file: BinaryIO, words: Sequence[bytes], count: int) -> None:
    _write(file, count)
    for at in range(count):
        token = words[at] if at < len(words) else b" w%d" % at
        file.write(struct.pack("<I", len(token)) + token)


def _write_encoder(file: BinaryIO, random: Weights) -> None:
    width = random.shape.width
    positions = random.normal((_AUDIO_POSITIONS, width))
    _write_tensor(file, "encoder.positional_embedding", positions)
    for name, channels in (("conv1", _MELS), ("conv2", width)):
        weights = random.weights((width, channels, 3))
        _write_tensor(file, f"encoder.{name}.weight", weights, is_half=True)
        _write_tensor(file, f"encoder.{name}.bias", np.zeros((width, 1)))
    _write_norm(file, "encoder.ln_post", width, 1.0)
    for layer in range(random.shape.layers):
        _write_block(file, f"encoder.blocks.{layer}", random, ("attn",))


def _write_block(file: BinaryIO, name: str, random: Weights, attentions: Sequence[str]) -> None:
    width = random.shape.width
    for attention in attentions:
        _write_norm(file, f"{name}.{attention}_ln", width, 1.0)
        for part in ("query", "key", "value", "out"):
            weights = random.weights((width, width))
            _write_tensor(file, f"{name}.{attention}.{part}.weight", weights, is_half=True)
            if part != "key":
                _write_tensor(file, f"{name}.{attention}.{part}.bias", np.zeros(width))
    _write_norm(file, f"{name}.mlp_ln", width, 1.0)
    for part, shape in (("0", (4 * width, width)), ("2", (width, 4 * width))):
        weights = random.weights(shape)
        _write_tensor(file, f"{name}.mlp.{part}.weight", weights, is_half=True)
        _write_tensor(file, f"{name}.mlp.{part}.bias", np.zeros(shape[0]))


def _write_norm(file: BinaryIO, name: str, width: int, weight: float) -> None:
    _write_tensor(file, f"{name}.weight", np.full(width, weight))
    _write_tensor(file, f"{name}.bias", np.zeros(width))


def _write_tensor(
    file: BinaryIO, name: str, values: NDArray[np.float64], *, is_half: bool = False
) -> None:
    _write(file, values.ndim, len(name), int(is_half), *reversed(values.shape))
    file.write(name.encode() + values.astype("<f2" if is_half else "<f4").tobytes())


def _write(file: BinaryIO, *numbers: int) -> None:
    file.write(struct.pack(f"<{len(numbers)}i", *numbers))


def can_transcribe() -> bool:
    """Returns True if the extra is installed."""
    return is_installed("transcription")


def require_transcription() -> None:
    """Skips the test where nothing can transcribe."""
    if not can_transcribe():
        missing("the extra is not installed: pip install 'llm-backend[transcription]'")
