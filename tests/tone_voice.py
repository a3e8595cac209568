"""A voice of tones: an ONNX model in the form of Piper's voices, whose sound is known.

Each word is a tone of `WORD_S` seconds; its frequency tells the word, and its loudness the speaker.
At half of the speed each sentence is heard twice. The file is made of bytes here, as the package
`onnx` is large.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_backend.extras import is_installed
from tests.missing import missing

__all__ = ["TONES", "heard", "require_voices", "write_voice"]

RATE_HZ = 8000
WORD_S = 0.05
TONES: Mapping[str, int] = {"one": 400, "two": 800, "three": 1200, "four": 1600}
"""Words that it knows, and the frequency of each."""

_SIGNS = ("_", "^", "$", " ", ".", ",", "!")  # tokens without a sound
_LETTERS = "abcd"  # a token for each word
_FLOAT, _INT64 = 1, 7  # element types of ONNX
_LOUDEST, _QUIETEST = 0.5, 0.125  # the first speaker, and the last
_STEP_S, _LEAST_STEPS = 0.005, 4  # by which the beginnings and ends of tones are found


def require_voices() -> None:
    """Skips the test where no such voice can speak."""
    if not is_installed("voices"):
        missing("the extra is not installed: pip install 'llm-backend[voices]'")


def write_voice(
    folder: Path,
    *,
    names: Sequence[str] = ("low", "high"),
    has_lexicon: bool = True,
    family: str = "vits",
    language: str = "English",
) -> Path:
    """Writes a voice with a speaker of each name to a new folder, and returns its model."""
    folder.mkdir(parents=True)
    symbols = (*_SIGNS, *_LETTERS)
    lines = "".join(f"{symbol} {number}\n" for number, symbol in enumerate(symbols))
    (folder / "tokens.txt").write_text(lines, encoding="utf-8")
    if has_lexicon:
        words = zip(TONES, _LETTERS, strict=True)
        lexicon = "".join(f"{word} {letter}\n" for word, letter in words)
        (folder / "lexicon.txt").write_text(lexicon, encoding="utf-8")
    metadata = {
        "model_type": family,
        "comment": "piper",
        "language": language,
        "voice": "en-us",
        "has_espeak": "1",
        "n_speakers": str(len(names)),
        "sample_rate": str(RATE_HZ),
        "punctuation": ". , !",
    }
    path = folder / "model.onnx"
    path.write_bytes(_model(len(names), metadata))
    by_name = {name: number for number, name in enumerate(names)}
    path.with_name("model.onnx.json").write_text(json.dumps({"speaker_id_map": by_name}))
    return path


def heard(samples: bytes, rate_hz: int) -> tuple[list[str], float]:
    """Returns the words in signed 16-bit samples, and their greatest loudness, from 0 to 1."""
    values = np.frombuffer(samples, "<i2") / 32768
    size = round(rate_hz * _STEP_S)
    steps = values[: len(values) // size * size].reshape(-1, size)
    is_loud = np.concatenate(([False], np.abs(steps).max(axis=1) > _QUIETEST / 4, [False]))
    edges = np.flatnonzero(is_loud[1:] != is_loud[:-1]).reshape(-1, 2)
    tones = [steps[start:end].ravel() for start, end in edges if end - start > _LEAST_STEPS]
    peaks = [np.abs(np.fft.rfft(one)).argmax() * rate_hz / len(one) for one in tones]
    words = [min(TONES, key=lambda word: abs(TONES[word] - hz)) for hz in peaks]
    return words, float(np.abs(values).max(initial=0))


def _model(speakers: int, metadata: dict[str, str]) -> bytes:
    return b"".join(
        (
            _field(1, 8),  # version of the format
            _field(7, _graph(speakers)),
            _field(8, _field(2, 17)),  # version of the operators
            *(_field(14, _field(1, key) + _field(2, value)) for key, value in metadata.items()),
        )
    )


def _graph(speakers: int) -> bytes:
    times = np.arange(round(RATE_HZ * WORD_S)) / RATE_HZ
    silence = [np.zeros_like(times) for _ in _SIGNS]
    tones = [*silence, *(np.sin(2 * np.pi * hz * times) for hz in TONES.values())]
    loudness = np.linspace(_LOUDEST, _QUIETEST, speakers)
    nodes = (
        _node("Gather", ["tones", "input"], "spoken"),
        _node("Gather", ["loudness", "sid"], "volume"),
        _node("Mul", ["spoken", "volume"], "loud"),
        _node("Reshape", ["loud", "flat"], "once"),
        _node("Gather", ["scales", "second"], "length"),
        _node("Max", ["length", "least"], "repeats"),
        _node("Cast", ["repeats"], "whole", _integer("to", _INT64)),
        _node("Concat", ["ones", "whole"], "tiles", _integer("axis", 0)),
        _node("Tile", ["once", "tiles"], "output"),
    )
    constants = (
        _tensor("tones", np.stack(tones).astype("<f4")),
        _tensor("loudness", loudness.astype("<f4")),
        _tensor("flat", np.array([1, 1, -1], "<i8")),
        _tensor("second", np.array([1], "<i8")),
        _tensor("least", np.array([1], "<f4")),
        _tensor("ones", np.array([1, 1], "<i8")),
    )
    inputs = (
        _value("input", _INT64, 2),
        _value("input_lengths", _INT64, 1),
        _value("scales", _FLOAT, 1),
        _value("sid", _INT64, 1),
    )
    return b"".join(
        (
            *(_field(1, node) for node in nodes),
            _field(2, "tones"),
            *(_field(5, constant) for constant in constants),
            *(_field(11, one) for one in inputs),
            _field(12, _value("output", _FLOAT, 3)),
        )
    )


def _node(kind: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
    names = b"".join(_field(1, one) for one in inputs)
    more = _field(5, attribute) if attribute else b""
    return names + _field(2, output) + _field(3, output) + _field(4, kind) + more


def _integer(name: str, value: int) -> bytes:
    return _field(1, name) + _field(3, value) + _field(20, 2)


def _tensor(name: str, values: NDArray[np.generic]) -> bytes:
    kind = _FLOAT if values.dtype.kind == "f" else _INT64
    shape = b"".join(_field(1, size) for size in values.shape)
    return shape + _field(2, kind) + _field(8, name) + _field(9, values.tobytes())


def _value(name: str, kind: int, dimensions: int) -> bytes:
    sizes = b"".join(_field(1, _field(2, f"{name}_{at}")) for at in range(dimensions))
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sizes)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Returns a field of Protocol Buffers."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes(data) + struct.pack("B", value)
