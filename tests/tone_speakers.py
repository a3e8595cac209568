"""Speakers that are tones: ONNX models that tell them apart, in the form of sherpa-onnx.

The model of segmentation hears a local speaker in each of two bands, frame by frame of 10 ms; that
of voices adds up the loudness of each band of frequencies, so that a tone is a voice.
"""

import io
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.onnx_files import FLOAT, integer, integers, model, node, tensor, value

__all__ = ["RATE_HZ", "Tone", "tones_file", "write_speakers"]

RATE_HZ = 16_000
Tone = tuple[float, float]
"""Frequency in Hz, a multiple of 100, or 0 for silence; and seconds."""

_WINDOW = RATE_HZ  # samples that the model of segmentation takes at once
_FRAME = 160  # samples
_BANDS = (range(100, 2000, 100), range(2000, 8000, 100))
_QUIETEST = 0.01  # loudness, as the square of a frame's sum
_FEATURES = 80


def write_speakers(folder: Path, **metadata: str) -> Path:
    """Writes both models to a new folder, and returns that of segmentation, with other
    `metadata`."""
    folder.mkdir(parents=True)
    path = folder / "segmentation.onnx"
    path.write_bytes(_segmentation(metadata))
    path.with_name("embedding.onnx").write_bytes(_embedding())
    return path


def tones_file(tones: Sequence[Tone], *, rate_hz: int = RATE_HZ) -> bytes:
    """A WAV file of tones, one after the other."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, rate_hz, 0, "NONE", ""))
        for hz, seconds in tones:
            times = np.arange(round(seconds * rate_hz)) / rate_hz
            writer.writeframes((np.sin(2 * np.pi * hz * times) * 8000).astype("<i2").tobytes())
    return file.getvalue()


def _segmentation(metadata: dict[str, str]) -> bytes:
    waves = [_waves(band) for band in _BANDS]
    nodes = [
        node("Reshape", ["samples", "frames_shape"], "frames"),
        *(
            one
            for band in range(len(_BANDS))
            for one in (
                node("MatMul", ["frames", f"waves_{band}"], f"heard_{band}"),
                node("Mul", [f"heard_{band}", f"heard_{band}"], f"squares_{band}"),
                node("ReduceMax", [f"squares_{band}"], f"band_{band}", integers("axes", [2])),
            )
        ),
        node("Mul", ["band_0", "nothing"], "zeros"),
        node("Add", ["zeros", "quietest"], "quiet"),
        node("Concat", ["quiet", "band_0", "band_1"], "classes", integer("axis", 2)),
    ]
    constants = [
        tensor("frames_shape", np.array([1, -1, _FRAME], "<i8")),
        *(tensor(f"waves_{at}", one.astype("<f4")) for at, one in enumerate(waves)),
        tensor("nothing", np.array([0], "<f4")),
        tensor("quietest", np.array([_QUIETEST], "<f4")),
    ]
    described = {
        "model_type": "pyannote-segmentation-3.0",
        "sample_rate": str(RATE_HZ),
        "window_size": str(_WINDOW),
        "receptive_field_size": str(_FRAME),
        "receptive_field_shift": str(_FRAME),
        "num_speakers": "2",
        "powerset_max_classes": "1",
        "num_classes": "3",
        **metadata,
    }
    outputs = [value("classes", FLOAT, 3)]
    return model(nodes, constants, [value("samples", FLOAT, 3)], outputs, described)


def _waves(band: Sequence[int]) -> np.ndarray:
    """Returns sines and cosines of a band's frequencies: [frame, 2 * frequencies]."""
    angles = 2 * np.pi * np.outer(np.arange(_FRAME), band) / RATE_HZ
    return np.concatenate((np.sin(angles), np.cos(angles)), axis=1) / _FRAME**0.5


def _embedding() -> bytes:
    """Features are logarithms of the power of each band."""
    nodes = [
        node("Exp", ["features"], "powers"),
        node("ReduceMean", ["powers"], "voice", integers("axes", [1])),
        node("Reshape", ["voice", "voice_shape"], "embedding"),
    ]
    constants = [tensor("voice_shape", np.array([1, _FEATURES], "<i8"))]
    described = {
        "framework": "wespeaker",
        "language": "English",
        "output_dim": str(_FEATURES),
        "sample_rate": str(RATE_HZ),
        "normalize_samples": "1",
    }
    inputs, outputs = [value("features", FLOAT, 3)], [value("embedding", FLOAT, 2)]
    return model(nodes, constants, inputs, outputs, described)
