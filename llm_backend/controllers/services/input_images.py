"""Images in the input: uploaded files and fetched images become data: URLs in chats."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from llm_backend.backends.data_url import decode_base64, parse_data_url
from llm_backend.backends.web_files import WebFile, WebFiles, is_web_url
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.response_items.input_parts import (
    FetchedFiles,
    Part,
    bare_part,
    fetched_file,
    has_fetched,
    read_parts,
)
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.json_types import JsonObject
from llm_backend.offload import base64_text
from llm_backend.store import FileStore


class InputImages:
    """Puts images into `input_image` parts as data: URLs: uploaded files of up to `limit_bytes`,
    and images that `web` fetches."""

    def __init__(self, files: FileStore, web: WebFiles, *, limit_bytes: int) -> None:
        self._files = files
        self._web = web
        self._limit_bytes = limit_bytes

    async def read(
        self,
        items: Sequence[JsonObject],
        where: str | None = None,
        fetched: FetchedFiles | None = None,
    ) -> list[JsonObject]:
        """Returns the items with data: URLs in place of files. `where` is the path of their list,
        None for items of earlier turns. Images at URLs are fetched if `fetched` is given and has
        room; otherwise the URL stays for the model's backend to fetch.

        Raises `InvalidRequest` for an image that cannot be read."""
        should_read = partial(_should_read, fetched=fetched)
        read = partial(self._part, fetched=fetched)
        return await read_parts(items, where, should_read, read)

    async def read_part(self, part: Part, where: str) -> JsonObject:
        """Returns the part with a data: URL in place of its file; `where` is its path."""
        return await self._part(part, where) if _should_read(part) else dict(part)

    async def content(self, reference: Part, where: str) -> bytes:
        """Returns the bytes of the image at `image_url`, which may be a data: URL, or in the
        uploaded file `file_id`; `where` is the path of the reference. Raises `InvalidRequest`."""
        url = reference.get("image_url")
        if url is None:
            return (await self._read_upload(reference["file_id"], f"{where}.file_id")).content
        if not url:
            raise InvalidRequest("The URL of the image is empty.", param=f"{where}.image_url")
        parsed = parse_data_url(url)
        if parsed is None:
            return (await self._web.fetch(url, f"{where}.image_url")).content
        try:
            data = await asyncio.to_thread(decode_base64, parsed.base64)
        except ValueError as error:
            message = "The image in the data: URL is not in base64."
            raise InvalidRequest(message, param=f"{where}.image_url") from error
        if len(data) > self._limit_bytes:
            raise self._too_large(f"{where}.image_url")
        return data

    async def _part(
        self, part: Part, where: str, fetched: FetchedFiles | None = None
    ) -> JsonObject:
        if not part.get("image_url"):
            upload = await self._read_upload(part["file_id"], f"{where}.file_id")
            return {**part, "image_url": await _data_url(upload)}
        if has_fetched(part):
            return {**bare_part(part), "image_url": await _data_url(fetched_file(part))}
        file = await self._web.fetch(part["image_url"], f"{where}.image_url")
        if fetched is not None:
            await fetched.add(where, file)
        return {**part, "image_url": await _data_url(file)}

    async def _read_upload(self, id: str, where: str) -> WebFile:
        try:
            with translate_store_errors("file"):
                stored = await self._files.get(id)
        except NotFound as error:
            raise InvalidRequest(error.message, param=where, code="image_file_not_found") from error
        if stored.size_bytes > self._limit_bytes:
            raise self._too_large(where)
        data = bytearray()
        with translate_store_errors("file"):
            async for piece in self._files.read(stored, 0, stored.size_bytes):
                data += piece
        return WebFile(name="", media_type=stored.media_type, content=bytes(data))

    def _too_large(self, where: str) -> InvalidRequest:
        return InvalidRequest(
            f"The image has more than {self._limit_bytes:,} bytes.",
            param=where,
            code="image_file_too_large",
        )


async def _data_url(file: WebFile) -> str:
    return f"data:{file.media_type};base64,{await base64_text(file.content)}"


def _should_read(part: object, fetched: FetchedFiles | None = None) -> bool:
    if not isinstance(part, Mapping) or part.get("type") != "input_image":
        return False
    url = part.get("image_url")
    if not url:
        return bool(part.get("file_id"))
    return has_fetched(part) or (fetched is not None and fetched.has_room and is_web_url(url))
