"""Media reader: decodes images and audio of messages for the engine, within limits."""

import binascii
import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from msgspec.structs import replace

from llm_backend.backends.data_url import decode_base64, parse_data_url
from llm_backend.backends.local.media.audio_duration import (
    BadAudio,
    check_finite,
    read_duration_s,
)
from llm_backend.backends.local.media.values import Audio, DecodedAudio, Image, MediaPart
from llm_backend.backends.local.media.web import IMAGE_WORDS, WebImages
from llm_backend.backends.web_files import WebFiles
from llm_backend.engine.messages import MediaItem, MediaKind
from llm_backend.errors import InvalidRequest
from llm_backend.offload import offload_media

_CACHE_BYTES = 64 << 20  # cache of decoded media: a conversation sends its images each turn
_PROMPT_BYTES = 128 << 20  # limit of one prompt's media, sent to the engine in one frame


@dataclass(frozen=True, kw_only=True)
class MediaBounds:
    """Limits of one request's media: bytes of an image or audio file, pixels of an image,
    seconds of audio, and their number. Images may be fetched from `hosts`, each within
    `fetch_s`."""

    count: int = 16
    image_bytes: int = 20 << 20
    image_pixels: int = 40_000_000
    audio_bytes: int = 25 << 20
    audio_s: float = 600
    hosts: tuple[str, ...] = ()
    fetch_s: float = 10


class MediaReader:
    """Decodes media of requests, with an LRU cache. `web` is for tests."""

    def __init__(self, bounds: MediaBounds | None = None, *, web: WebImages | None = None) -> None:
        self._bounds = bounds or MediaBounds()
        self._web = web or WebImages(
            WebFiles(
                self._bounds.hosts,
                messages=IMAGE_WORDS,
                limit_bytes=self._bounds.image_bytes,
                timeout_s=self._bounds.fetch_s,
            )
        )
        self._cache: OrderedDict[bytes, MediaItem] = OrderedDict()
        self._cache_bytes = 0

    def check_count(self, files: Iterable[MediaPart]) -> None:
        """Raises `InvalidRequest`, which names the first file beyond the limit."""
        limit = self._bounds.count
        for file in islice(files, limit, None):
            raise InvalidRequest(
                f"There are more than {limit} images and audio files, which is this server's limit "
                "(`media_limit`).",
                param=file.param,
            )

    async def decode(self, files: Sequence[tuple[int, MediaPart]]) -> list[MediaItem]:
        """Decodes media with their positions in a prompt. Raises `InvalidRequest`, which names the
        invalid file."""
        decoded = []
        for at, file in files:
            decoded.append(await self._decode_cached(at, file))
            if sum(len(one.data) for one in decoded) > _PROMPT_BYTES:
                raise InvalidRequest(
                    f"The images and audio of a prompt have more than {_PROMPT_BYTES:,} bytes.",
                    param=file.param,
                )
        return decoded

    async def _decode_cached(self, at: int, file: MediaPart) -> MediaItem:
        if isinstance(file, DecodedAudio):
            return _audio(at, file.data)
        if isinstance(file, Image):
            file = await self._web.fetch(file)
        key, media = await offload_media(self._find_or_decode, file)
        self._add_to_cache(key, media)
        return replace(media, at=at)

    def _find_or_decode(self, file: Image | Audio) -> tuple[bytes, MediaItem]:
        key = _key(file)
        return key, self._cache.get(key) or self._decode(file)

    def _add_to_cache(self, key: bytes, media: MediaItem) -> None:
        if key not in self._cache:
            self._cache[key] = media
            self._cache_bytes += len(media.data)
        self._cache.move_to_end(key)
        while self._cache_bytes > _CACHE_BYTES and len(self._cache) > 1:
            self._cache_bytes -= len(self._cache.popitem(last=False)[1].data)

    def _decode(self, file: Image | Audio) -> MediaItem:
        return self._decode_image(file) if isinstance(file, Image) else self._decode_audio(file)

    def _decode_image(self, image: Image) -> MediaItem:
        # Imported late, so that servers without images do not load Pillow.
        from llm_backend.backends.local.media.images import BadImage, decode_image

        bounds = self._bounds
        data = _decode_base64(_base64_of(image), bounds.image_bytes, image)
        try:
            pixels = decode_image(data, detail=image.detail, limit=bounds.image_pixels)
        except BadImage as error:
            raise InvalidRequest(str(error), param=image.param, code=error.code) from error
        return MediaItem(
            at=0,
            medium=MediaKind.IMAGE,
            data=pixels.data,
            digest=hashlib.sha256(pixels.data).digest(),
            width=pixels.width,
            height=pixels.height,
        )

    def _decode_audio(self, audio: Audio) -> MediaItem:
        bounds = self._bounds
        data = _decode_base64(audio.data, bounds.audio_bytes, audio)
        try:
            seconds = read_duration_s(data, audio.format)
            check_finite(data, audio.format)
        except BadAudio as error:
            raise InvalidRequest(str(error), param=audio.param) from error
        if seconds > bounds.audio_s:
            raise InvalidRequest(
                f"The audio lasts {seconds:.1f} s; it may last {bounds.audio_s:g} s.",
                param=audio.param,
            )
        return _audio(0, data)


def _audio(at: int, data: bytes) -> MediaItem:
    return MediaItem(at=at, medium=MediaKind.AUDIO, data=data, digest=hashlib.sha256(data).digest())


def _key(file: Image | Audio) -> bytes:
    """Returns the cache key of a file and its options."""
    parts = (file.url, file.detail) if isinstance(file, Image) else (file.data, file.format)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def _base64_of(image: Image) -> str:
    if (file := parse_data_url(image.url)) is not None:
        return file.base64
    raise InvalidRequest(
        "An image must be a data: URL with base64 in it.",
        param=image.param,
        code="invalid_image_url",
    )


def _decode_base64(text: str, limit: int, file: MediaPart) -> bytes:
    """Decodes a file from base64. Raises `InvalidRequest` for too large a file without decoding."""
    if len(text) * 3 // 4 > limit:
        raise InvalidRequest(
            f"The {file.medium} has more than {limit:,} bytes.",
            param=file.param,
            code="image_file_too_large" if isinstance(file, Image) else None,
        )
    try:
        data = decode_base64(text)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            f"The {file.medium} is not base64.",
            param=file.param,
            code="invalid_base64_image" if isinstance(file, Image) else None,
        ) from error
    if not data:
        raise InvalidRequest(
            f"The {file.medium} is empty.",
            param=file.param,
            code="empty_image_file" if isinstance(file, Image) else None,
        )
    return data
