"""Diarization models, which tell speakers apart, in sherpa-onnx's format: detection and metadata.

Such a model is a folder. `segmentation.onnx` is pyannote's model, which finds the turns of speakers
within a few seconds. `embedding.onnx` makes a vector of a voice. The metadata are checked here:
wrong ones would make the native code crash or write out of bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from llm_backend.model_files.header import HeaderError
from llm_backend.model_files.onnx_metadata import metadata_number, read_metadata

SEGMENTATION, EMBEDDING = "segmentation.onnx", "embedding.onnx"

_RATE_HZ = 16_000
_LARGEST_WINDOW = 60 * _RATE_HZ
_SPEAKERS = 16  # limit of speakers in a window
_DIMENSIONS = 10_000
_FRAMEWORKS: Mapping[str, tuple[str, ...]] = {
    "wespeaker": ("", "global-mean"),
    "3d-speaker": ("", "global-mean"),
    "nemo": ("", "per_feature"),
}
"""Known frameworks of embedding models, and the known feature normalisations of each."""

_COMPUTE_BYTES = 200_000_000  # of a block of a recording


@dataclass(frozen=True, kw_only=True)
class DiarizationFiles:
    """Files of a diarization model. The embedding model was made by `framework`; its vectors have
    `dimensions` numbers."""

    extra: ClassVar[str] = "voices"
    library: ClassVar[str] = "sherpa-onnx"

    name: str
    segmentation: Path
    embedding: Path
    framework: str
    dimensions: int
    file_bytes: int

    @property
    def description(self) -> str:
        """Families of both models, in words."""
        return f"pyannote segmentation, {self.framework} embeddings of {self.dimensions} numbers"

    @property
    def memory_bytes(self) -> int:
        """Estimated memory of a loaded model: three times its files (their content and copies of
        the weights), and a block of a recording."""
        return 3 * self.file_bytes + _COMPUTE_BYTES


def is_diarization_file(path: Path) -> bool:
    """Returns True for the `segmentation.onnx` of such a model."""
    return path.name == SEGMENTATION and path.is_file() and path.with_name(EMBEDDING).is_file()


def read_diarization(path: Path) -> DiarizationFiles:
    """Reads the metadata of both models. Raises `HeaderError` for those that the library cannot
    compute."""
    _check_segmentation(path)
    embedding = path.with_name(EMBEDDING)
    framework, dimensions = _read_embedding(embedding)
    return DiarizationFiles(
        name=path.parent.resolve().name,
        segmentation=path,
        embedding=embedding,
        framework=framework,
        dimensions=dimensions,
        file_bytes=path.stat().st_size + embedding.stat().st_size,
    )


def _check_segmentation(path: Path) -> None:
    metadata = read_metadata(path)
    _check_rate(path, metadata)
    window = metadata_number(path, metadata, "window_size", _LARGEST_WINDOW)
    for key in ("receptive_field_size", "receptive_field_shift"):
        metadata_number(path, metadata, key, window)
    speakers = metadata_number(path, metadata, "num_speakers", _SPEAKERS)
    at_once = metadata_number(path, metadata, "powerset_max_classes", 2)
    pairs = speakers * (speakers - 1) // 2 if at_once > 1 else 0
    classes = metadata_number(path, metadata, "num_classes", _SPEAKERS**2)
    if classes != 1 + speakers + pairs:
        raise HeaderError(
            f"{path} is broken: it has {classes} classes for {speakers} speakers, {at_once} at "
            f"once, not {1 + speakers + pairs}."
        )


def _read_embedding(path: Path) -> tuple[str, int]:
    metadata = read_metadata(path)
    framework = metadata.get("framework", "")
    if framework not in _FRAMEWORKS:
        raise HeaderError(
            f"{path} makes no embeddings of voices of a known kind: its `framework` is "
            f"{framework[:50] or 'missing'}, not {', '.join(_FRAMEWORKS)}."
        )
    _check_rate(path, metadata)
    normalisation = metadata.get("feature_normalize_type", "")
    if normalisation not in _FRAMEWORKS[framework]:
        raise HeaderError(
            f"{path} is broken: its `feature_normalize_type` is {normalisation[:50]}."
        )
    if not metadata.get("language"):
        raise HeaderError(f"{path} is broken: its `language` is missing.")
    if framework == "nemo":
        for key in ("feat_dim", "window_size_ms", "window_stride_ms"):
            metadata_number(path, metadata, key, 1000)
    else:
        metadata_number(path, metadata, "normalize_samples", 1, least=0)
    return framework, metadata_number(path, metadata, "output_dim", _DIMENSIONS)


def _check_rate(path: Path, metadata: Mapping[str, str]) -> None:
    rate_hz = metadata_number(path, metadata, "sample_rate", 192_000)
    if rate_hz != _RATE_HZ:
        raise HeaderError(f"{path} is for audio of {rate_hz} Hz, not {_RATE_HZ}.")
