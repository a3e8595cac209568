"""Parser of data: URLs with base64 (RFC 2397), and of base64. Pure."""

import base64
import binascii
from dataclasses import dataclass

_STRETCH = 1024 * 1024  # characters decoded per call, a multiple of four


@dataclass(frozen=True, kw_only=True)
class DataUrl:
    """Parsed data: URL: the media type, and the bytes in base64."""

    media_type: str
    base64: str


def parse_data_url(url: str) -> DataUrl | None:
    """Parses a data: URL; returns None for other URLs, and if it is not in base64."""
    head, comma, text = url.partition(",")
    scheme, _, parameters = head.partition(":")
    if not comma or scheme.lower() != "data" or not parameters.lower().endswith(";base64"):
        return None
    return DataUrl(media_type=parameters.partition(";")[0], base64=text)


def decode_base64(text: str) -> bytes:
    """Decodes base64 in stretches: other threads can run between two. Raises `ValueError` for
    anything else."""
    if "=" in text[:-2]:
        raise binascii.Error("There is text after the padding.")
    return b"".join(
        base64.b64decode(text[start : start + _STRETCH], validate=True)
        for start in range(0, len(text), _STRETCH)
    )
