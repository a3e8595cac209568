"""A voice of tones: an ONNX model in the form of Piper's, Kokoro's or Matcha's voices, with known
audio.

Each word is a tone of `WORD_S` seconds; its frequency tells the word, and its loudness the speaker.
At half of the speed each sentence is heard twice.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_backend.extras import is_installed
from tests.missing import missing
from tests.onnx_files import FLOAT, INT64, integer, model, node, tensor, value

__all__ = ["TONES", "heard", "require_voices", "write_vocoder", "write_voice"]

RATE_HZ = 8000
WORD_S = 0.05
TONES: Mapping[str, int] = {"one": 400, "two": 800, "three": 1200, "four": 1600}
"""Words that it knows, and the frequency of each."""

_SIGNS = ("_", "^", "$", " ", ".", ",", "!")  # tokens without audio
_LETTERS = "abcd"  # a token for each word
_LOUDEST, _QUIETEST = 0.5, 0.125  # the first speaker, and the last
_STYLES = 510  # of each speaker of Kokoro: one for each number of tokens
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
    if family == "kokoro":
        metadata |= {
            "version": "2",
            "style_dim": f"{_STYLES},1,1",
            "speaker_names": ",".join(names),
        }
        path.with_name("voices.bin").write_bytes(
            np.repeat(_loudness(len(names)), _STYLES).tobytes()
        )
    if family == "matcha-tts":
        metadata |= {"use_eos_bos": "1", "pad_id": "0"}
        write_vocoder(path.with_name("vocoder.onnx"))
    path.write_bytes(_model(family, len(names), metadata))
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


def write_vocoder(path: Path, *, rate_hz: int = RATE_HZ, kind: str = "hifigan") -> None:
    """Writes a vocoder that leaves the audio as it is."""
    path.write_bytes(
        model(
            [node("Reshape", ["mel", "flat"], "audio")],
            [tensor("flat", np.array([-1], "<i8"))],
            [value("mel", FLOAT, 3)],
            [value("audio", FLOAT, 1)],
            {"model_type": kind, "sample_rate": str(rate_hz)},
        )
    )


def _loudness(speakers: int) -> NDArray[np.float32]:
    return np.linspace(_LOUDEST, _QUIETEST, speakers).astype("<f4")


def _model(family: str, speakers: int, metadata: dict[str, str]) -> bytes:
    times = np.arange(round(RATE_HZ * WORD_S)) / RATE_HZ
    silence = [np.zeros_like(times) for _ in _SIGNS]
    tones = [*silence, *(np.sin(2 * np.pi * hz * times) for hz in TONES.values())]
    volume = node("Gather", ["loudness", "sid"], "volume")
    match family:
        case "kokoro":  # whose styles are the loudness
            own = [
                node("Identity", ["style"], "volume"),
                node("Reciprocal", ["speed"], "length"),
            ]
            inputs = [
                value("input", INT64, 2),
                value("style", FLOAT, 2),
                value("speed", FLOAT, 1),
            ]
        case "matcha-tts":  # whose spectrum is the audio
            own = [volume, node("Identity", ["length_scale"], "length")]
            inputs = [
                value("input", INT64, 2),
                value("input_lengths", INT64, 1),
                value("noise_scale", FLOAT, 1),
                value("length_scale", FLOAT, 1),
                value("sid", INT64, 1),
            ]
        case _:
            own = [volume, node("Gather", ["scales", "second"], "length")]
            inputs = [
                value("input", INT64, 2),
                value("input_lengths", INT64, 1),
                value("scales", FLOAT, 1),
                value("sid", INT64, 1),
            ]
    nodes = [
        *own,
        node("Gather", ["tones", "input"], "spoken"),
        node("Mul", ["spoken", "volume"], "loud"),
        node("Reshape", ["loud", "flat"], "once"),
        node("Max", ["length", "least"], "repeats"),
        node("Cast", ["repeats"], "whole", integer("to", INT64)),
        node("Concat", ["ones", "whole"], "tiles", integer("axis", 0)),
        node("Tile", ["once", "tiles"], "output"),
    ]
    constants = [
        tensor("tones", np.stack(tones).astype("<f4")),
        tensor("loudness", _loudness(speakers)),
        tensor("flat", np.array([1, 1, -1], "<i8")),
        tensor("second", np.array([1], "<i8")),
        tensor("least", np.array([1], "<f4")),
        tensor("ones", np.array([1, 1], "<i8")),
    ]
    return model(nodes, constants, inputs, [value("output", FLOAT, 3)], metadata)
