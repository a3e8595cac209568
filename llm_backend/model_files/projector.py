"""Multimodal projector (mmproj): supported media and memory footprint, from its GGUF header.

While an image is encoded, the activations of all its patches are in memory. The number of patches
of an image of variable size is not in every header; then the usual maximum of such projectors is
assumed. So an estimate is rather too high than too low.
"""

from dataclasses import dataclass

from llm_backend.model_files.header import GgufHeader, HeaderError

_ACTIVATIONS = 16  # vectors of the projector's embedding length in memory per patch
_LARGEST_PATCH_COUNT = 4 * 4096  # patches of an image, before four are merged into one
_CACHE_BYTES = 64 << 20  # the engine's cache of media embeddings
_AUDIO_PATCHES = 3000  # of thirty seconds


@dataclass(frozen=True, kw_only=True)
class ProjectorShape:
    """Media that a projector encodes: images, audio. One that `has_speech` generates audio instead,
    and encodes samples of voices only."""

    has_vision: bool
    has_audio: bool
    has_speech: bool = False


def projector_shape(header: GgufHeader) -> ProjectorShape:
    """Reads the supported media. Raises `HeaderError` for a file that is not a projector."""
    values = header.values
    has_speech = values.get("clip.has_gen_audio_encoder") is True
    shape = ProjectorShape(
        has_vision=values.get("clip.has_vision_encoder") is True,
        has_audio=values.get("clip.has_audio_encoder") is True and not has_speech,
        has_speech=has_speech,
    )
    has_any = shape.has_vision or shape.has_audio or shape.has_speech
    if header.architecture != "clip" or not has_any:
        raise HeaderError(f"it is not a projector: its architecture is `{header.architecture}`.")
    return shape


def projector_footprint(header: GgufHeader) -> int:
    """Estimates the bytes of a projector, in addition to its model."""
    computes = [
        _patches(header, sense) * _values_per_patch(header, sense) for sense in ("vision", "audio")
    ]
    return header.weights_bytes + 4 * max(computes) + _CACHE_BYTES


def _patches(header: GgufHeader, sense: str) -> int:
    if sense == "audio":
        return _AUDIO_PATCHES
    side, patch = (
        _header_number(header, "clip.vision.image_size"),
        _header_number(header, "clip.vision.patch_size"),
    )
    if "merger" in str(header.values.get("clip.projector_type")) or not side or not patch:
        return _LARGEST_PATCH_COUNT
    return (side // patch) ** 2


def _values_per_patch(header: GgufHeader, sense: str) -> int:
    width = _header_number(header, f"clip.{sense}.embedding_length")
    return _ACTIVATIONS * width + 2 * _header_number(header, f"clip.{sense}.feed_forward_length")


def _header_number(header: GgufHeader, key: str) -> int:
    value = header.values.get(key)
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 0
