"""Download response of a stored file: whole or a byte range, never executed by a browser."""

import logging
import re
from contextlib import aclosing, suppress
from dataclasses import dataclass
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import ClientGone, RangeNotSatisfiable
from llm_backend.store import FileStore, ObjectMissing, StoredFile, StoreUnavailable

log = logging.getLogger(__name__)
_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


class Download(Response):
    """Response with the requested bytes. The constructor raises `RangeNotSatisfiable`."""

    def __init__(self, files: FileStore, file: StoredFile, request: ApiRequest) -> None:
        headers, size_bytes = request.http.headers, file.size_bytes
        etag = f'"{file.id}"'  # a file never changes
        wants_part = headers.get("if-range", etag) == etag
        part = byte_range(headers.get("range"), size_bytes) if wants_part else None
        start, end = (part.start, part.end) if part else (0, size_bytes)
        super().__init__(
            status_code=206 if part else 200,
            headers={
                "content-length": str(end - start),
                "content-type": file.media_type,
                "content-disposition": disposition(file.filename),
                "x-content-type-options": "nosniff",
                "accept-ranges": "bytes",
                "etag": etag,
            },
        )
        if part:
            self.headers["content-range"] = f"bytes {start}-{end - 1}/{size_bytes}"
        self._request = request
        sends_body = request.http.method != "HEAD"
        self._pieces = files.read(file, start, end if sends_body else start)
        self._first = b""

    async def begin(self) -> "Download":
        """Reads the first bytes, while a failure can still become an error response, and returns
        itself."""
        self._first = await anext(self._pieces, b"")
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientGone):
            async with aclosing(self._pieces):
                await cancel_on_disconnect(self._request, self._send(send))

    async def _send(self, send: Send) -> None:
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        try:
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (StoreUnavailable, ObjectMissing) as error:
            # Without a last message the server closes the connection, so that the client sees that
            # the download is incomplete.
            log.error("answer_cut", extra={"reason": str(error)})
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def disposition(filename: str) -> str:
    """Returns a `Content-Disposition` header (RFC 6266), with the UTF-8 name in `filename*`."""
    name = filename.replace("\\", "/").rpartition("/")[2] or "file"  # a name, never a path
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "_" for c in name)
    encoded = quote(name, safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """The bytes from `start` up to, but not including, `end`."""

    start: int
    end: int


def byte_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """Parses a `Range` header; returns None, the whole file, for no, several or a malformed range.

    Raises `RangeNotSatisfiable` for a range that begins after the last byte.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        start, end = max(0, size_bytes - int(match[2])), size_bytes
    else:
        start, end = int(match[1]), min(int(match[2] or size_bytes) + 1, size_bytes)
        if match[2] and int(match[2]) < start:
            return None
    if start >= size_bytes:
        raise RangeNotSatisfiable(size_bytes)
    return ByteRange(start=start, end=end)
