"""Pictures in the input that were uploaded here: data: URLs, in place of files, for chats."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from llm_backend.controllers.responses.input_parts import with_parts_read
from llm_backend.controllers.store_errors import store_errors_translated
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.store import Files

__all__ = ["FilePictures"]

Json = dict[str, Any]


class FilePictures:
    """Reads `input_image` parts that name a file of up to `limit_bytes`."""

    def __init__(self, files: Files, *, limit_bytes: int) -> None:
        self._files = files
        self._limit_bytes = limit_bytes

    async def read(self, items: Sequence[Json], where: str | None = None) -> list[Json]:
        """The items with data: URLs in place of files. `where` names the list that they are, None
        for what was said earlier. Raises `InvalidRequest` for a file that cannot be shown."""
        return await with_parts_read(items, where, _names_file, self._part)

    async def read_part(self, part: Mapping[str, Any], where: str) -> Json:
        """The same for one part, which stands at `where`."""
        return await self._part(part, where) if _names_file(part) else dict(part)

    async def _part(self, part: Mapping[str, Any], where: str) -> Json:
        where = f"{where}.file_id"
        try:
            with store_errors_translated("file"):
                stored = await self._files.get(part["file_id"])
        except NotFound as error:
            raise InvalidRequest(error.message, param=where, code="image_file_not_found") from error
        if stored.size_bytes > self._limit_bytes:
            raise InvalidRequest(
                f"The picture has more than {self._limit_bytes:,} bytes.",
                param=where,
                code="image_file_too_large",
            )
        data = bytearray()
        with store_errors_translated("file"):
            async for piece in self._files.read(stored, 0, stored.size_bytes):
                data += piece
        url = f"data:{stored.media_type};base64,{base64.b64encode(data).decode()}"
        return {**part, "image_url": url}


def _names_file(part: object) -> bool:
    return (
        isinstance(part, Mapping)
        and part.get("type") == "input_image"
        and bool(part.get("file_id"))
        and not part.get("image_url")
    )
