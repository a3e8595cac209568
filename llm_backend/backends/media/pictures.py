"""Picture files -> pixels, within bounds. The only module that imports Pillow.

How large a picture becomes is what OpenAI says that it does: `low` fits 512 by 512 pixels,
`original` 2,048 by 2,048, and the others that and 768 on the shorter side. It bounds what a
picture weighs on its way to the engine, and how many tokens a model makes of it that takes pictures
of any size.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["BadPicture", "Pixels", "pixels_of"]

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_LONG, _SHORT, _LOW = 2048, 768, 512  # pixels of a side
_PAPER = "white"  # what is seen through a picture that lets it


class BadPicture(Exception):
    """This is no picture that can be shown; the message is a sentence, `code` OpenAI's name of what
    is wrong."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Rows of `width` pixels, three bytes each."""

    width: int
    height: int
    data: bytes


def pixels_of(data: bytes, *, detail: str, limit: int) -> Pixels:
    """The first picture in a file, turned upright and as large as `detail` says. Raises
    `BadPicture`; one of more than `limit` pixels is not decoded."""
    with _translated(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > limit:
            raise BadPicture(
                f"The picture has {width} x {height} pixels; it may have {limit:,}.",
                "image_too_large",
            )
        size = _size(width, height, detail)
        image.draft("RGB", size)  # a JPEG need not be decoded larger than it is wanted
        return _pixels(ImageOps.exif_transpose(image), detail)


def _pixels(image: Image.Image, detail: str) -> Pixels:
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.new("RGB", seen.size, _PAPER)
        image.paste(seen, mask=seen)
    upright = image.convert("RGB")
    size = _size(*upright.size, detail)
    if size != upright.size:
        upright = upright.resize(size, Image.Resampling.BICUBIC)
    return Pixels(width=size[0], height=size[1], data=upright.tobytes())


def _size(width: int, height: int, detail: str) -> tuple[int, int]:
    """What a picture of this size is shrunk to; none is enlarged."""
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
def _translated() -> Iterator[None]:
    """What a decoder raises, in our words."""
    try:
        yield
    except UnidentifiedImageError as error:
        message = "This is no PNG, JPEG, WebP or GIF picture."
        raise BadPicture(message, "unsupported_image_media_type") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPicture("The picture has too many pixels.", "image_too_large") from error
    # what the decoders of damaged files raise
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise BadPicture(f"The picture is damaged: {error}.", "image_parse_error") from error
