"""A voice of tones: an ONNX model in the form of Piper's voices, whose audio is known.

Each word is a tone of `WORD_S` seconds; its frequency tells the word, and its loudness the speaker.
At half of the speed each sentence is heard twice.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llm_backend.extras import is_installed
from tests.missing import missing
from tests.onnx_files import FLOAT, INT64, integer, model, node, tensor, value

__all__ = ["TONES", "heard", "require_voices", "write_voice"]

RATE_HZ = 8000
WORD_S = 0.05
TONES: Mapping[str, int] = {"one": 400, "two": 800, "three": 1200, "four": 1600}
"""Words that it knows, and the frequency of each."""

_SIGNS = ("_", "^", "$", " ", ".", ",", "!")  # tokens without audio
_LETTERS = "abcd"  # a token for each word
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
    times = np.arange(round(RATE_HZ * WORD_S)) / RATE_HZ
    silence = [np.zeros_like(times) for _ in _SIGNS]
    tones = [*silence, *(np.sin(2 * np.pi * hz * times) for hz in TONES.values())]
    loudness = np.linspace(_LOUDEST, _QUIETEST, speakers)
    nodes = (
        node("Gather", ["tones", "input"], "spoken"),
        node("Gather", ["loudness", "sid"], "volume"),
        node("Mul", ["spoken", "volume"], "loud"),
        node("Reshape", ["loud", "flat"], "once"),
        node("Gather", ["scales", "second"], "length"),
        node("Max", ["length", "least"], "repeats"),
        node("Cast", ["repeats"], "whole", integer("to", INT64)),
        node("Concat", ["ones", "whole"], "tiles", integer("axis", 0)),
        node("Tile", ["once", "tiles"], "output"),
    )
    constants = (
        tensor("tones", np.stack(tones).astype("<f4")),
        tensor("loudness", loudness.astype("<f4")),
        tensor("flat", np.array([1, 1, -1], "<i8")),
        tensor("second", np.array([1], "<i8")),
        tensor("least", np.array([1], "<f4")),
        tensor("ones", np.array([1, 1], "<i8")),
    )
    inputs = (
        value("input", INT64, 2),
        value("input_lengths", INT64, 1),
        value("scales", FLOAT, 1),
        value("sid", INT64, 1),
    )
    return model(nodes, constants, inputs, [value("output", FLOAT, 3)], metadata)
