"""Attachments of a message in `llm-backend chat`: images and audio as message parts."""

import base64
import re
import shlex
from pathlib import Path

from llm_backend.home_folder import expand_home
from llm_backend.json_types import JsonObject

Part = JsonObject

LIMIT_BYTES = 64 << 20  # a file is in memory four times; servers accept far less

_IMAGES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}
_AUDIO = {
    "wav": re.compile(rb"RIFF.{4}WAVE", re.DOTALL),
    "mp3": re.compile(rb"ID3|\xff[\xe2-\xff]"),
}


class AttachmentError(Exception):
    """The file cannot be attached; the message says why, in one sentence."""


def attachment(words: str) -> Part:
    """Read a file as a message part, by its path as typed or pasted. Raises `AttachmentError`."""
    path = _path(words)
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise AttachmentError(f"{path} is larger than {LIMIT_BYTES >> 20} MiB.")
        data = path.read_bytes()
    except OSError as error:
        raise AttachmentError(f"{path} cannot be read: {error.strerror or error}.") from error
    text = base64.b64encode(data).decode()
    if kind := _kind(data, _IMAGES):
        return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{text}"}}
    if kind := _kind(data, _AUDIO):
        return {"type": "input_audio", "input_audio": {"data": text, "format": kind}}
    raise AttachmentError(
        f"{path} is neither an image (PNG, JPEG, WebP, GIF) nor audio (WAV, MP3)."
    )


def _path(words: str) -> Path:
    """Resolve a path as typed, or as terminals paste it: in quotes or with escaped spaces."""
    typed = expand_home(words)
    if typed.exists():
        return typed
    try:
        parts = shlex.split(words)
    except ValueError:  # half a pair of quotes
        return typed
    return expand_home(parts[0]) if len(parts) == 1 else typed


def _kind(data: bytes, kinds: dict[str, re.Pattern[bytes]]) -> str | None:
    return next((kind for kind, beginning in kinds.items() if beginning.match(data)), None)
