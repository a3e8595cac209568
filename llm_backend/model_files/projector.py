"""Multimodal projector (mmproj): supported media and memory footprint, from its GGUF header.

While an image is encoded, the activations of all its patches are in memory. Not every header gives
the number of patches of images of variable size; then the usual maximum is assumed, so that
estimates err on the high side.
"""

from dataclasses import dataclass

from llm_backend.model_files.header import GgufHeader, HeaderError

_ACTIVATIONS = 16  # vectors of the projector's embedding length in memory per patch
_LARGEST_PATCH_COUNT = 4 * 4096  # patches of an image, before four are merged into one
_CACHE_BYTES = 64 << 20  # the engine's cache of media embeddings
_AUDIO_PATCHES = 3000  # of thirty seconds
_REWRITTEN_TYPE = "voxtral"  # of projectors that the engine copies into memory to load them
AUDIO_TYPE_KEYS = ("clip.projector_type", "clip.audio.projector_type")


@dataclass(frozen=True, kw_only=True)
class ProjectorMedia:
    """Media that a projector encodes: images, audio. With `has_speech` it generates speech, and
    encodes only samples of voices."""

    has_vision: bool
    has_audio: bool
    has_speech: bool = False


def projector_media(header: GgufHeader) -> ProjectorMedia:
    """Returns the supported media. Raises `HeaderError` for a file that is not a projector."""
    values = header.values
    has_speech = values.get("clip.has_gen_audio_encoder") is True
    media = ProjectorMedia(
        has_vision=values.get("clip.has_vision_encoder") is True,
        has_audio=values.get("clip.has_audio_encoder") is True and not has_speech,
        has_speech=has_speech,
    )
    has_any = media.has_vision or media.has_audio or media.has_speech
    if header.architecture != "clip" or not has_any:
        raise HeaderError(f"it is not a projector: its architecture is `{header.architecture}`.")
    return media


def audio_projector_types(header: GgufHeader) -> frozenset[str]:
    """Returns the types of a projector of audio, as the header names them."""
    return frozenset(str(header.values[key]) for key in AUDIO_TYPE_KEYS if key in header.values)


def projector_footprint(header: GgufHeader) -> int:
    """Estimates the bytes of a projector, in addition to its model."""
    computes = [
        _patches(header, modality) * _values_per_patch(header, modality)
        for modality in ("vision", "audio")
    ]
    used = 4 * max(computes) + _CACHE_BYTES
    if _REWRITTEN_TYPE in audio_projector_types(header):
        used = max(used, header.weights_bytes)  # before it is used
    return header.weights_bytes + used


def _patches(header: GgufHeader, modality: str) -> int:
    if modality == "audio":
        return _AUDIO_PATCHES
    side, patch = (
        _header_number(header, "clip.vision.image_size"),
        _header_number(header, "clip.vision.patch_size"),
    )
    if "merger" in str(header.values.get("clip.projector_type")) or not side or not patch:
        return _LARGEST_PATCH_COUNT
    return (side // patch) ** 2


def _values_per_patch(header: GgufHeader, modality: str) -> int:
    width = _header_number(header, f"clip.{modality}.embedding_length")
    return _ACTIVATIONS * width + 2 * _header_number(header, f"clip.{modality}.feed_forward_length")


def _header_number(header: GgufHeader, key: str) -> int:
    value = header.values.get(key)
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 0
