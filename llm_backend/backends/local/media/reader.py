"""Media reader: decodes pictures and sounds of messages for the engine, within limits."""

import asyncio
import base64
import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from llm_backend.backends.data_url import data_url
from llm_backend.backends.local.media.sounds import BadSound, seconds_of
from llm_backend.backends.local.media.values import Picture, Shown, Sound
from llm_backend.backends.local.media.web import PICTURE_WORDS, WebPictures
from llm_backend.backends.web_files import WebFiles
from llm_backend.engine.messages import Media, Medium
from llm_backend.errors import InvalidRequest

__all__ = ["MediaBounds", "MediaReader"]

_AT_ONCE = 2  # concurrent decodings: each may take some hundred megabytes
_KEPT_BYTES = 64 << 20  # cache of decoded media: a conversation sends its pictures each turn
_TOGETHER_BYTES = 128 << 20  # limit of one prompt's media, sent to the engine in one frame


@dataclass(frozen=True, kw_only=True)
class MediaBounds:
    """Limits of one request's media: bytes of a picture's or a sound's file, pixels of a picture,
    seconds of a sound, and their number. Pictures may be fetched from `hosts`, each within
    `fetch_s`."""

    count: int = 16
    picture_bytes: int = 20 << 20
    picture_pixels: int = 40_000_000
    sound_bytes: int = 25 << 20
    sound_s: float = 600
    hosts: tuple[str, ...] = ()
    fetch_s: float = 10


class MediaReader:
    """Decodes media of requests, with an LRU cache. `web` is for tests."""

    def __init__(
        self, bounds: MediaBounds | None = None, *, web: WebPictures | None = None
    ) -> None:
        self._bounds = bounds or MediaBounds()
        self._web = web or WebPictures(
            WebFiles(
                self._bounds.hosts,
                words=PICTURE_WORDS,
                limit_bytes=self._bounds.picture_bytes,
                timeout_s=self._bounds.fetch_s,
            )
        )
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._kept: OrderedDict[bytes, Media] = OrderedDict()
        self._kept_bytes = 0

    async def read(self, placed: Sequence[tuple[int, Shown]]) -> list[Media]:
        """Decodes media with their positions in a prompt. Raises `InvalidRequest` that names the
        invalid one."""
        bounds = self._bounds
        if len(placed) > bounds.count:
            raise InvalidRequest(
                f"There are {len(placed)} pictures and sounds; this server takes {bounds.count}.",
                param=placed[bounds.count][1].where,
            )
        found = []
        for at, shown in placed:
            found.append(await self._one(at, shown))
            if sum(len(one.data) for one in found) > _TOGETHER_BYTES:
                raise InvalidRequest(
                    "The pictures and sounds are too much for one prompt.", param=shown.where
                )
        return found

    async def _one(self, at: int, shown: Shown) -> Media:
        if isinstance(shown, Picture):
            shown = await self._web.fetched(shown)
        async with self._turns:
            key = await asyncio.to_thread(_key, shown)
            media = self._kept.get(key)
            if media is None:
                media = await asyncio.to_thread(self._decoded, shown)
                self._keep(key, media)
        return replace(media, at=at)

    def _keep(self, key: bytes, media: Media) -> None:
        if key not in self._kept:
            self._kept[key] = media
            self._kept_bytes += len(media.data)
        self._kept.move_to_end(key)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1].data)

    def _decoded(self, shown: Shown) -> Media:
        return self._picture(shown) if isinstance(shown, Picture) else self._sound(shown)

    def _picture(self, picture: Picture) -> Media:
        # Imported late, so that servers without pictures do not load Pillow.
        from llm_backend.backends.local.media.pictures import BadPicture, pixels_of

        bounds, where = self._bounds, picture.where
        data = _file(_base64_of(picture), bounds.picture_bytes, picture)
        try:
            pixels = pixels_of(data, detail=picture.detail, limit=bounds.picture_pixels)
        except BadPicture as error:
            raise InvalidRequest(str(error), param=where, code=error.code) from error
        return Media(
            at=0,
            medium=Medium.PICTURE,
            data=pixels.data,
            digest=hashlib.sha256(pixels.data).digest(),
            width=pixels.width,
            height=pixels.height,
        )

    def _sound(self, sound: Sound) -> Media:
        bounds = self._bounds
        data = _file(sound.data, bounds.sound_bytes, sound)
        try:
            seconds = seconds_of(data, sound.format)
        except BadSound as error:
            raise InvalidRequest(str(error), param=sound.where) from error
        if seconds > bounds.sound_s:
            raise InvalidRequest(
                f"The sound lasts {seconds:.1f} s; it may last {bounds.sound_s:g} s.",
                param=sound.where,
            )
        digest = hashlib.sha256(data).digest()
        return Media(at=0, medium=Medium.SOUND, data=data, digest=digest)


def _key(shown: Shown) -> bytes:
    """Returns the cache key of a file and its options."""
    said = (shown.url, shown.detail) if isinstance(shown, Picture) else (shown.data, shown.format)
    return hashlib.sha256("\0".join(said).encode("utf-8", "surrogatepass")).digest()


def _base64_of(picture: Picture) -> str:
    if (file := data_url(picture.url)) is not None:
        return file.base64
    raise InvalidRequest(
        "A picture is a data: URL with base64 in it.",
        param=picture.where,
        code="invalid_image_url",
    )


def _file(text: str, limit: int, shown: Shown) -> bytes:
    """Decodes a file from base64. Raises `InvalidRequest` for too large a file without decoding."""
    if len(text) * 3 // 4 > limit:
        raise InvalidRequest(
            f"The {shown.medium} has more than {limit:,} bytes.",
            param=shown.where,
            code="image_file_too_large" if isinstance(shown, Picture) else None,
        )
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            f"The {shown.medium} is not base64.",
            param=shown.where,
            code="invalid_base64_image" if isinstance(shown, Picture) else None,
        ) from error
    if not data:
        raise InvalidRequest(
            f"The {shown.medium} is empty.",
            param=shown.where,
            code="empty_image_file" if isinstance(shown, Picture) else None,
        )
    return data
