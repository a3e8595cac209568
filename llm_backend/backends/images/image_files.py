"""Converts the image files of drawings: sources, masks, and the formats of answers.

Pillow is an optional dependency, so this module is imported only when an image is converted.
"""

import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from llm_backend.backends.local.media.images import BadImage, in_eight_bits, open_image, upright
from llm_backend.engine.messages import Pixels

_DRAWN_ALPHA = 0  # alpha of the pixels that are drawn again
_WHITE, _BLACK = 255, 0
_MODES = {"png": ("RGB", "RGBA", "L", "LA", "P"), "webp": ("RGB", "RGBA"), "jpeg": ("RGB", "L")}


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One image: its file, and its size in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image to draw on, as PNG. `mask` is white where it is fully transparent: these pixels are
    drawn again. None if there are none."""

    data: bytes
    width: int
    height: int
    mask: bytes | None


def convert_image(data: bytes, format: str, quality: int | None, *, limit: int) -> ImageFile:
    """Converts an image to `png`, `jpeg` or `webp`; `quality` of the last two is 0 to 100, None for
    the library's default. A file that has the format already is unchanged, unless a quality is
    given. Raises `BadImage`, also for more than `limit` pixels."""
    with open_image(data, limit) as image:
        width, height = image.size
        if image.format == format.upper() and quality is None:
            image.load()
            return ImageFile(data=data, width=width, height=height)
        file = io.BytesIO()
        options = {} if quality is None else {"quality": quality}
        _convert_mode(image, format).save(file, format, **options)
        return ImageFile(data=file.getvalue(), width=width, height=height)


def read_source(data: bytes, *, limit: int) -> SourceImage:
    """Reads the image of an edit, upright. Raises `BadImage`, also for more than `limit` pixels."""
    with open_image(data, limit) as image:
        turned = in_eight_bits(upright(image))
        has_alpha = turned.has_transparency_data
        source = turned.convert("RGBA" if has_alpha else "RGB")
        mask = _drawn_pixels(source) if has_alpha else None
        return SourceImage(
            data=_png(source.convert("RGB")),
            width=source.width,
            height=source.height,
            mask=None if mask is None or mask.getextrema() == (_BLACK, _BLACK) else _png(mask),
        )


def read_mask(data: bytes, source: SourceImage, *, limit: int) -> bytes:
    """Returns a mask as PNG, upright and white where the source is drawn again: where `data` is
    fully transparent. Raises `BadImage`, also for a mask without transparency or of another
    size."""
    with open_image(data, limit) as image:
        turned = upright(image)
        if turned.size != (source.width, source.height):
            width, height = turned.size
            raise BadImage(
                f"The mask has {width} x {height} pixels; the image has {source.width} x "
                f"{source.height}.",
                "image_size_mismatch",
            )
        if not turned.has_transparency_data:
            raise BadImage(
                "The mask has no transparency; what is transparent in it is drawn again.",
                "invalid_image_mask",
            )
        return _png(_drawn_pixels(turned.convert("RGBA")))


def source_pixels(data: bytes, size: tuple[int, int]) -> bytes:
    """Returns the pixels of a PNG in this size, cropped rather than distorted: three bytes each."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return ImageOps.fit(image.convert("RGB"), size).tobytes()


def mask_pixels(data: bytes, size: tuple[int, int]) -> bytes:
    """Returns the pixels of a mask in this size, cropped as its source: one byte each."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return ImageOps.fit(image.convert("L"), size, Image.Resampling.NEAREST).tobytes()


def encode_pixels(pixels: Pixels, size: tuple[int, int]) -> bytes:
    """Returns a PNG of this size with these pixels."""
    image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.data)
    return _png(image if image.size == size else image.resize(size))


def _drawn_pixels(image: Image.Image) -> Image.Image:
    alpha = image.getchannel("A")
    return alpha.point([_WHITE if value == _DRAWN_ALPHA else _BLACK for value in range(256)])


def _convert_mode(image: Image.Image, format: str) -> Image.Image:
    modes = _MODES[format]
    image = in_eight_bits(image)
    if image.mode in modes:
        return image
    keeps_alpha = "RGBA" in modes and image.has_transparency_data
    return image.convert("RGBA" if keeps_alpha else "RGB")


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
