"""Hooks of schemathesis where a model transcribes and an image server draws: valid bodies name
them, and have a recording or an image."""

import base64
from collections.abc import Mapping
from typing import Any

import schemathesis

import tests.live.schemathesis_hooks  # noqa: F401  # registers those of every part, too
from tests.audio_files import wav_file
from tests.image_server import image_file

_AUDIO, _IMAGE = wav_file(0.2), image_file("red", (64, 64), mode="RGBA")
_FILES: Mapping[str, Mapping[str, str | bytes]] = {
    "createTranscription": {"model": "hello", "file": _AUDIO},
    "createTranslation": {"model": "hello", "file": _AUDIO},
    "createImage": {"model": "sd-one"},
    "createImageEdit": {"model": "sd-one", "image": _IMAGE},
    "createImageVariation": {"model": "sd-one", "image": _IMAGE},
}
"""Fields without which nothing behind the checks is reached, by operation."""
_IMAGES_IN_JSON = [{"image_url": f"data:image/png;base64,{base64.b64encode(_IMAGE).decode()}"}]
_OFTEN_REFUSED = (
    "background", "input_fidelity", "mask", "output_compression", "partial_images", "size", "style",
)  # fmt: skip


@schemathesis.hook("before_call")
def name_files(_context: object, case: Any, **_more: object) -> None:
    """Gives valid bodies a model that hears or draws, and a file."""
    operation = case.operation.definition.raw.get("operationId")
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if is_valid and operation in _FILES and isinstance(case.body, dict):
        is_form = case.media_type == "multipart/form-data"
        fields = _FILES[operation]
        if len(case.body) % 2:
            for name in _OFTEN_REFUSED:
                case.body.pop(name, None)
        if "images" in case.body:
            case.body["images"] = _IMAGES_IN_JSON
        case.body.update(
            {name: value for name, value in fields.items() if is_form or isinstance(value, str)}
        )
