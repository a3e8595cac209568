"""What a projector's header says: what it can read, and what it takes in memory.

While a picture is read there are its patches and what attention makes of them, all at once. How
many patches a picture of any size becomes is not in every header; then it is taken for as many as
projectors of that kind usually allow. An estimate errs upwards.
"""

from dataclasses import dataclass

from llm_backend.model_files.header import GgufHeader, HeaderError

__all__ = ["ProjectorShape", "projector_footprint", "projector_shape"]

_ACTIVATIONS = 16  # vectors of the projector's width that a patch has in memory
_MOST_PATCHES = 4 * 4096  # of a picture whose size decides, before four are merged into one
_KEPT_BYTES = 64 << 20  # embeddings that are kept, as the engine keeps them
_SOUND_PATCHES = 3000  # half a minute


@dataclass(frozen=True, kw_only=True)
class ProjectorShape:
    """What it can read."""

    sees: bool
    hears: bool


def projector_shape(header: GgufHeader) -> ProjectorShape:
    """What a projector can read. Raises `HeaderError` for a file that is none."""
    values = header.values
    shape = ProjectorShape(
        sees=values.get("clip.has_vision_encoder") is True,
        hears=values.get("clip.has_audio_encoder") is True,
    )
    if header.architecture != "clip" or not (shape.sees or shape.hears):
        raise HeaderError(f"it is no projector: it says that it is a `{header.architecture}`.")
    return shape


def projector_footprint(header: GgufHeader) -> int:
    """The bytes that it takes beside its model."""
    computes = [
        _patches(header, sense) * _numbers_of_a_patch(header, sense)
        for sense in ("vision", "audio")
    ]
    return header.weights_bytes + 4 * max(computes) + _KEPT_BYTES


def _patches(header: GgufHeader, sense: str) -> int:
    if sense == "audio":
        return _SOUND_PATCHES
    side, patch = _whole(header, "clip.vision.image_size"), _whole(header, "clip.vision.patch_size")
    if "merger" in str(header.values.get("clip.projector_type")) or not side or not patch:
        return _MOST_PATCHES
    return (side // patch) ** 2


def _numbers_of_a_patch(header: GgufHeader, sense: str) -> int:
    width = _whole(header, f"clip.{sense}.embedding_length")
    return _ACTIVATIONS * width + 2 * _whole(header, f"clip.{sense}.feed_forward_length")


def _whole(header: GgufHeader, key: str) -> int:
    value = header.values.get(key)
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 0
