"""Parser of data: URLs with base64 (RFC 2397). Pure."""

from dataclasses import dataclass


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
