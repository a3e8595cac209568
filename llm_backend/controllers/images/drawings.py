"""Translation of image requests to drawings: each field takes effect, or is refused by name."""

import re
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from llm_backend.backends.images.image_models import ImageModel
from llm_backend.backends.images.image_request import ImageRequest
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, Unsupported, UnsupportedField
from llm_backend.extras import install_command, is_installed
from llm_backend.json_types import JsonMapping, JsonValue
from llm_backend.offload import offload_media

if TYPE_CHECKING:  # imports Pillow
    from llm_backend.backends.images.image_files import SourceImage
    from llm_backend.contract import api_types as api

    ImageBody: TypeAlias = (
        api.CreateImageRequest | api.CreateImageEditRequest | api.EditImageBodyJsonParam
    )

ImageFormat = Literal["png", "jpeg", "webp"]
Quality = Literal["low", "medium", "high"]

GENERATION_FIELDS = frozenset({
    "prompt", "model", "n", "quality", "response_format", "output_format", "output_compression",
    "stream", "partial_images", "size", "moderation", "background", "user",
    "safety_identifier",
})  # fmt: skip
EDIT_FIELDS = GENERATION_FIELDS | {"image", "images", "mask"}
VARIATION_FIELDS = frozenset({"image", "model", "n", "response_format", "size", "user"})

NOT_INSTALLED = "images_not_installed"
_MODELS = "models that draw"
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_MIN_SIDE = 64  # pixels
_QUALITIES: Mapping[str, Quality] = {"low": "low", "high": "high", "hd": "high"}
_NEUTRAL = {"input_fidelity": ("low",)}  # values that change nothing
_LOSSY = ("jpeg", "webp")


@dataclass(frozen=True, kw_only=True)
class ImageStyle:
    """Form of the images in the answer. `compression` is the quality of JPEG and WebP from 0 to
    100; None leaves it to the library."""

    format: ImageFormat = "png"
    compression: int | None = None
    quality: Quality = "medium"
    as_urls: bool = False
    streams: bool = False


@dataclass(frozen=True, kw_only=True)
class EditFiles:
    """Files of an edit, with the paths of their fields."""

    image: bytes
    mask: bytes | None = None
    image_param: str = "image"
    mask_param: str = "mask"


def parse_drawing(body: "ImageBody", *, pixels_limit: int, side_step: int) -> ImageRequest:
    """Returns the drawing that a body asks for; width and height are multiples of `side_step`.
    Raises `InvalidRequest` and `UnsupportedField`."""
    if body.get("background") == "transparent":
        raise UnsupportedField(
            "Models draw no transparent background; `opaque` and `auto` are supported.",
            param="background",
        )
    previews = int(body.get("partial_images") or 0)  # JSON has 1.0, too
    if previews and not body.get("stream"):
        raise InvalidRequest("`partial_images` needs `stream: true`.", param="partial_images")
    return ImageRequest(
        prompt=body.get("prompt", ""),
        count=int(body.get("n") or 1),
        size=parse_size(body.get("size"), pixels_limit, side_step),
        quality=_quality(body),
        previews=previews,
    )


def check_fields(body: JsonMapping, supported: Collection[str]) -> None:
    """Raises `UnsupportedField` for a field that models which draw cannot honour."""
    refuse_unsupported_fields(body, supported, neutral=_NEUTRAL, by=_MODELS)


def parse_style(body: "ImageBody") -> ImageStyle:
    """Returns the form of the answer's images. Raises `InvalidRequest`."""
    format: ImageFormat = body.get("output_format") or "png"
    compression = body.get("output_compression")
    if compression is not None and not 0 <= compression <= 100:
        raise InvalidRequest(
            "`output_compression` must be from 0 to 100.", param="output_compression"
        )
    if compression is not None and format not in _LOSSY:
        if compression != 100:  # the default
            raise InvalidRequest(
                "`output_compression` needs the `output_format` `jpeg` or `webp`.",
                param="output_compression",
            )
        compression = None
    as_urls = body.get("response_format") == "url"
    streams = bool(body.get("stream"))
    if as_urls and streams:
        raise InvalidRequest("Streamed images must be in base64.", param="response_format")
    if format != "png":
        require_library()
    return ImageStyle(
        format=format,
        compression=None if compression is None else int(compression),
        quality=_quality(body),
        as_urls=as_urls,
        streams=streams,
    )


def _quality(body: "ImageBody") -> Quality:
    return _QUALITIES.get(body.get("quality") or "auto", "medium")


def parse_size(size: str | None, pixels_limit: int, side_step: int) -> tuple[int, int] | None:
    """Parses `WIDTHxHEIGHT`; None for `auto`. Raises `InvalidRequest` for a size that cannot be
    drawn, or has more pixels than the limit."""
    if size in (None, "auto"):
        return None
    match = _SIZE.fullmatch(size or "")
    if match is None:
        raise _bad_size(f"`{(size or '')[:40]}` is not `WIDTHxHEIGHT` in pixels.")
    width, height = int(match[1]), int(match[2])
    if min(width, height) < _MIN_SIDE or width % side_step or height % side_step:
        raise _bad_size(f"Width and height must be multiples of {side_step}, at least {_MIN_SIDE}.")
    if width * height > pixels_limit:
        raise _bad_size(
            f"{width}x{height} has {width * height:,} pixels, and the limit is {pixels_limit:,}: "
            f"a local model needs `pixels_limit: {width * height}` in `image_models`, and "
            f"`drawn_pixels_limit` applies to all models."
        )
    return width, height


async def read_edit_form(services: Services, request: ApiRequest) -> tuple[JsonValue, EditFiles]:
    """Returns the fields and the files of the form of an edit or a variation. Raises
    `UnsupportedField` for a second image."""
    assert request.form is not None, "the body is a form"
    files: dict[str, bytes] = {}
    limit_bytes = services.settings.image_limit_bytes
    async with aclosing(request.form.files(("image", "mask"), limit_bytes=limit_bytes)) as parts:
        async for part in parts:
            if part.field in files:
                raise _too_many_images(part.field)
            files[part.field] = await _join(part.pieces)
    fields = await request.form.fields()
    if request.form_head is not None:
        request.form_head.close()  # its copy of the files is not needed while images are drawn
    return fields, EditFiles(image=files["image"], mask=files.get("mask"))


async def read_edit_body(services: Services, body: "api.EditImageBodyJsonParam") -> EditFiles:
    """Returns the files to which the JSON body of an edit refers. Raises `InvalidRequest`, and
    `UnsupportedField` for a second image."""
    images, mask = body["images"], body.get("mask")
    if len(images) > 1:
        raise _too_many_images("images")
    read = services.input_images.content
    return EditFiles(
        image=await read(images[0], "images[0]"),
        mask=None if mask is None else await read(mask, "mask"),
        image_param="images[0]",
        mask_param="mask",
    )


async def with_files(
    services: Services, model: ImageModel, drawing: ImageRequest, files: EditFiles
) -> ImageRequest:
    """Returns the drawing that starts from these files. Without a mask file, the transparent pixels
    of the image are the mask. Raises `InvalidRequest` for invalid files, and for a mask of another
    size."""
    require_library()
    return await offload_media(
        _with_files,
        drawing,
        files,
        services.settings.image_limit_pixels,
        services.image_models.pixels_limit(model, services.settings.drawn_pixels_limit),
        services.image_models.side_step(model),
    )


def require_library() -> None:
    """Raises `Unsupported` if images cannot be converted."""
    if not is_installed("images"):
        raise Unsupported(
            "Edits of images, and other formats than `png`, need a library that is not installed: "
            f"{install_command('images')}.",
            code=NOT_INSTALLED,
        )


def _with_files(
    drawing: ImageRequest, files: EditFiles, limit: int, drawn_limit: int, side_step: int
) -> ImageRequest:
    from llm_backend.backends.images.image_files import read_mask, read_source
    from llm_backend.backends.local.media.images import BadImage

    param = files.image_param
    try:
        source = read_source(files.image, limit=limit)
        mask = source.mask
        if files.mask is not None:
            param = files.mask_param
            mask = read_mask(files.mask, source, limit=limit)
    except BadImage as error:
        raise InvalidRequest(str(error), param=param, code=error.code) from error
    size = drawing.size or _size_of(source, drawn_limit, side_step, files.image_param)
    return replace(drawing, source=source.data, mask=mask, size=size)


def _size_of(source: "SourceImage", limit: int, side_step: int, param: str) -> tuple[int, int]:
    """Returns the size of a drawing that starts from an image: that of the image, reduced to the
    limit of pixels, and rounded down to multiples of `side_step`. Raises `InvalidRequest` for an
    image so narrow that, with the minimum side, the drawing exceeds the limit."""
    share = min(1.0, (limit / (source.width * source.height)) ** 0.5)
    width, height = (
        max(int(side * share) // side_step * side_step, _MIN_SIDE)
        for side in (source.width, source.height)
    )
    if width * height > limit:
        raise InvalidRequest(
            f"The image has {source.width} x {source.height} pixels, and a drawing of this form "
            f"would have {width}x{height}: name a `size` of at most {limit:,} pixels.",
            param=param,
        )
    return width, height


def _bad_size(reason: str) -> InvalidRequest:
    return InvalidRequest(reason, param="size")


def _too_many_images(param: str) -> UnsupportedField:
    message = f"A drawing must begin with one image; `{param}` holds more than one."
    return UnsupportedField(message, param=param)


async def _join(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])
