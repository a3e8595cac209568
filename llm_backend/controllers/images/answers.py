"""Renders drawn images as the document's answers: objects, events, and files behind URLs."""

import asyncio
import logging
import struct
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_backend.backends.images.image_request import GeneratedImage, Preview
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.files.operations import new_file_id
from llm_backend.controllers.images.drawings import ImageStyle
from llm_backend.controllers.rendering.closing_stream import one_piece
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import UpstreamFailed
from llm_backend.extras import is_installed
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import base64_text, offload_media
from llm_backend.store import Missing, StoredFile, StoreError

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

ImageStream = AsyncGenerator[Preview | GeneratedImage, None]

log = logging.getLogger(__name__)

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD_BYTES = 24  # signature, and a header chunk up to width and height
_NO_TOKENS: "api.ImageGenUsage" = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""Usage of a drawing: models that draw count no tokens."""


@dataclass(frozen=True, kw_only=True)
class StyledImage:
    """One image in the form of the answer; `size` is `WIDTHxHEIGHT` in pixels."""

    data: bytes
    size: str


async def style_image(data: bytes, style: ImageStyle, *, limit: int) -> StyledImage:
    """Returns a drawn image in the form of the answer. Raises `UpstreamFailed` for one that is
    damaged, or has more than `limit` pixels. Without the extra `images` only the signature of a PNG
    is checked."""
    return await offload_media(_style, data, style, limit)


async def style_preview_or_image(
    one: Preview | GeneratedImage, style: ImageStyle, *, limit: int
) -> StyledImage | None:
    """Returns a preview or an image in the form of the answer; None for an invalid preview, because
    the image still follows. Raises `UpstreamFailed` for an invalid image."""
    try:
        return await style_image(one.data, style, limit=limit)
    except UpstreamFailed as error:
        if not isinstance(one, Preview):
            raise
        log.info("preview_invalid", extra={"reason": error.message})
        return None


def _style(data: bytes, style: ImageStyle, limit: int) -> StyledImage:
    if not is_installed("images"):
        return _keep(data)  # a PNG, because no other format is admitted then
    from llm_backend.backends.images.image_files import convert_image
    from llm_backend.backends.local.media.images import BadImage

    try:
        file = convert_image(data, style.format, style.compression, limit=limit)
    except BadImage as error:
        raise UpstreamFailed(f"The drawn image is invalid: {error}") from error
    return StyledImage(data=file.data, size=f"{file.width}x{file.height}")


def _keep(data: bytes) -> StyledImage:
    if not data.startswith(_PNG) or len(data) < _PNG_HEAD_BYTES:
        raise UpstreamFailed("The drawn image is not a PNG image.")
    width, height = struct.unpack(">II", data[16:_PNG_HEAD_BYTES])
    return StyledImage(data=data, size=f"{width}x{height}")


async def images_answer(
    services: Services, request: ApiRequest, images: ImageStream, style: ImageStyle
) -> "api.ImagesResponse":
    """Returns the whole answer, once all images are drawn."""
    limit = services.settings.image_limit_pixels
    async with aclosing(images):
        drawn = [one async for one in images if isinstance(one, GeneratedImage)]
    styled = [await style_image(one.data, style, limit=limit) for one in drawn]
    if style.as_urls:  # checked before any is stored
        with translate_store_errors("file"):
            await services.files.check_capacity(sum(len(one.data) for one in styled))
    data: list[api.Image]
    if style.as_urls:
        data = [{"url": url} for url in await _store_all(services, request, styled, style)]
    else:
        data = [{"b64_json": await base64_text(one.data)} for one in styled]
    return {
        "created": int(time.time()),
        "background": "opaque",
        "data": data,
        "output_format": style.format,
        "quality": style.quality,
        "size": styled[0].size,
        "usage": _NO_TOKENS,
    }


async def image_events(
    services: Services, images: ImageStream, style: ImageStyle, *, kind: str
) -> AsyncGenerator[JsonMapping, None]:
    """Yields the document's events of a stream; `kind` is `image_generation` or `image_edit`."""
    limit = services.settings.image_limit_pixels
    async with aclosing(images):
        async for one in images:
            image = await style_preview_or_image(one, style, limit=limit)
            if image is None:
                continue
            event: JsonObject = {
                "type": f"{kind}.completed",
                "b64_json": await base64_text(image.data),
                "created_at": int(time.time()),
                "size": image.size,
                "quality": style.quality,
                "background": "opaque",
                "output_format": style.format,
            }
            if isinstance(one, Preview):
                event |= {"type": f"{kind}.partial_image", "partial_image_index": one.index}
            else:
                event["usage"] = _NO_TOKENS
            yield event


async def _store_all(
    services: Services, request: ApiRequest, images: Sequence[StyledImage], style: ImageStyle
) -> list[str]:
    """Stores images as files and returns the URLs of their contents. If one cannot be stored, or
    the client disconnects, those before it are deleted: no client would know of them."""
    address = services.settings.public_url or _address(request)
    ids = [new_file_id() for _ in images]
    try:
        for id, image in zip(ids, images, strict=True):
            await _store(services, id, image, style)
    except BaseException:
        await asyncio.shield(_delete_all(services, ids))
        raise
    return [f"{address}/v1/files/{id}/content" for id in ids]


async def _delete_all(services: Services, ids: Sequence[str]) -> None:
    for id in ids:
        try:
            await services.files.delete(id)
        except Missing:
            pass  # it has not been stored
        except StoreError as error:
            log.warning("image_not_deleted", extra={"file_id": id, "reason": str(error)})


async def _store(services: Services, id: str, image: StyledImage, style: ImageStyle) -> None:
    """Stores an image as a file of this id."""
    with translate_store_errors("file"):
        async with services.files.blobs.writing(one_piece(image.data)) as blob:
            await services.files.add(
                StoredFile(
                    id=id,
                    created_at=int(time.time()),
                    purpose="vision",
                    filename=f"{id}.{style.format}",
                    media_type=f"image/{style.format}",
                    content=(blob,),
                )
            )


def _address(request: ApiRequest) -> str:
    """Returns the address that the request was sent to; empty for an internal request."""
    http = request.http
    host = http.headers.get("host")
    if host is None:
        return ""
    forwarded = http.headers.get("x-forwarded-proto", "")
    scheme = forwarded if forwarded in ("http", "https") else http.url.scheme
    return f"{scheme}://{host}{http.scope.get('root_path', '')}"
