"""Wire format of image servers, `/sdapi/v1`: paths, request bodies and answers (no I/O)."""

import base64
from typing import Any

import orjson

from llm_backend import exact_json
from llm_backend.backends.data_url import decode_base64
from llm_backend.backends.images.image_request import ImageOptions, ImageRequest
from llm_backend.errors import UpstreamFailed
from llm_backend.json_types import JsonMapping, JsonObject

TEXT_TO_IMAGE = "/sdapi/v1/txt2img"
IMAGE_TO_IMAGE = "/sdapi/v1/img2img"
PROGRESS = "/sdapi/v1/progress"
INTERRUPT = "/sdapi/v1/interrupt"
OPTIONS = "/sdapi/v1/options"


def request_body(drawing: ImageRequest, options: ImageOptions, title: str) -> bytes:
    """Returns the body of a request for images by the checkpoint of this title."""
    overrides: Any = options.parameters.get("override_settings") or {}
    fields: JsonObject = {
        **options.parameters,
        "prompt": drawing.prompt,
        "batch_size": 1,
        "n_iter": drawing.count,
        "steps": options.steps[drawing.quality],
        "send_images": True,
        "save_images": False,
        "do_not_save_samples": True,
        "do_not_save_grid": True,
        "override_settings": {**overrides, "sd_model_checkpoint": title},
        # True would load the previous model again after each request.
        "override_settings_restore_afterwards": False,
    }
    if drawing.size is not None:
        fields["width"], fields["height"] = drawing.size
    if drawing.source is not None:
        fields["init_images"] = [_base64(drawing.source)]
        fields["resize_mode"] = 1  # crops to the size, and distorts nothing
    if drawing.mask is not None:
        fields |= {"mask": _base64(drawing.mask), "inpainting_mask_invert": 0}
    return exact_json.dumps(fields)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def parse_images(body: bytes) -> list[bytes]:
    """Returns the image files of an answer. Raises `UpstreamFailed`."""
    answer = _parse(body)
    images = answer.get("images")
    if not isinstance(images, list) or not images:
        raise UpstreamFailed("The image server answered without an image.")
    return [_decode(one) for one in images]


def parse_progress(body: bytes) -> tuple[float, bytes]:
    """Returns the share of the work that is done, and the current image, empty if it is not
    shown. Raises `UpstreamFailed`."""
    progress = _parse(body)
    share, current = progress.get("progress"), progress.get("current_image")
    if not isinstance(share, int | float):
        raise UpstreamFailed("The image server reports no progress.")
    return float(share), _decode(current) if current else b""


def parse_loaded_checkpoint(body: bytes) -> str | None:
    """Returns the title of the checkpoint that the server's options name as loaded, if any. Raises
    `UpstreamFailed`."""
    name = _parse(body).get("sd_model_checkpoint")
    return name if isinstance(name, str) else None


def _parse(body: bytes) -> JsonMapping:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UpstreamFailed("The answer of the image server is not JSON.") from error
    if not isinstance(answer, dict):
        raise UpstreamFailed("The answer of the image server is not an object.")
    return answer


def _decode(image: object) -> bytes:
    """Decodes an image in base64, which may be a data: URL."""
    if not isinstance(image, str):
        raise UpstreamFailed("The image server sent an image that is not a string.")
    head, comma, rest = image.partition(",")
    try:
        return decode_base64(rest if comma else head)
    except ValueError as error:
        raise UpstreamFailed("The image server sent an image that is not in base64.") from error
