"""Decodes and resizes image files to RGB pixels.

Sizes follow OpenAI's documentation: `low` fits 512 by 512 pixels, `original` 2,048 by 2,048; other
details fit that, too, with at most 768 pixels on the shorter side. The sizes bound the bytes sent
to the engine, and the tokens of models that accept images of any size.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image, UnidentifiedImageError

from llm_backend.engine.messages import Pixels

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_LONG, _SHORT, _LOW = 2048, 768, 512  # pixels of a side
_COLOURS = ("RGB", "RGBA")
_TRANSPOSITIONS = {  # transposition to upright, by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACKGROUND = "white"  # of transparent images
# Exceptions of decoders for damaged files.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)


class BadImage(Exception):
    """Invalid image; the message is a sentence, `code` is OpenAI's error code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def decode_image(data: bytes, *, detail: str, limit: int) -> Pixels:
    """Decodes the first image in a file, upright and resized by `detail`. Raises `BadImage`; an
    image of more than `limit` pixels is not decoded."""
    with open_image(data, limit) as image:
        size = _target_size(*image.size, detail)
        image.draft("RGB", size)  # decodes a JPEG at a reduced size
        turn = _orientation(image)
        shrunk = _resize(image, size)  # before the transposition, which copies it
        turned = shrunk if turn is None else shrunk.transpose(turn)
        return Pixels(width=turned.width, height=turned.height, data=_flatten(turned).tobytes())


@contextmanager
def open_image(data: bytes, limit: int) -> Iterator[Image.Image]:
    """Opens the first image in a file, without decoding it. Raises `BadImage`, also for more than
    `limit` pixels and for decoder errors within the context."""
    with _translate_errors(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > limit:
            raise BadImage(
                f"The image has {width} x {height} pixels; it may have at most {limit:,}.",
                "image_too_large",
            )
        yield image


def upright(image: Image.Image) -> Image.Image:
    """Returns the image turned upright by its EXIF data."""
    turn = _orientation(image)
    return image if turn is None else image.transpose(turn)


def in_eight_bits(image: Image.Image) -> Image.Image:
    """Scales an image in 16-bit grey to 8 bits (a plain conversion would clip it to white); other
    images are unchanged."""
    if not image.mode.startswith("I"):
        return image
    return image.point(lambda value: value / 256).convert("L")


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Returns the transposition that turns the image upright; None if it needs none, or if its EXIF
    data are unreadable, which does not make it invalid."""
    try:
        return _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        return None


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resizes an image and converts it to RGB or RGBA."""
    image = in_eight_bits(image)
    if image.mode not in _COLOURS:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.resize(size, Image.Resampling.BICUBIC)


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    paper = Image.new("RGB", image.size, _BACKGROUND)
    paper.paste(image, mask=image)
    return paper


def _target_size(width: int, height: int, detail: str) -> tuple[int, int]:
    """Returns the size after shrinking; images are never enlarged."""
    long, short = max(width, height), min(width, height)
    if detail == "low":
        share = _LOW / long
    elif detail == "original":
        share = _LONG / long
    else:
        share = min(_LONG / long, _SHORT / short)
    share = min(1.0, share)
    return max(1, round(width * share)), max(1, round(height * share))


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Translates errors of decoders to `BadImage`."""
    try:
        yield
    except UnidentifiedImageError as error:
        message = "This is not a PNG, JPEG, WebP or GIF image."
        raise BadImage(message, "unsupported_image_media_type") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage("The image has too many pixels.", "image_too_large") from error
    except _DECODER_ERRORS as error:
        raise BadImage(f"The image is damaged: {error}.", "image_parse_error") from error
