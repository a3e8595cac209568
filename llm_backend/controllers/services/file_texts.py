"""Files in the input, which models read as extracted text."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakValueDictionary

from llm_backend.backends.data_url import decode_base64, parse_data_url
from llm_backend.backends.web_files import FetchMessages, WebFiles
from llm_backend.controllers.rendering.closing_stream import one_piece
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.response_items.input_parts import (
    FetchedFiles,
    Part,
    fetched_file,
    has_fetched,
    read_parts,
)
from llm_backend.errors import InvalidRequest, NotFound, ServiceUnavailable
from llm_backend.extraction import ExtractionError, Extractor, ReaderKilled
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload
from llm_backend.store import FileStore

CACHE_CHARACTERS = 16 * 1024 * 1024  # of cached texts: each turn of a conversation reads them
FILE_WORDS = FetchMessages(
    noun="file",
    instead="send `file_data`, upload the file and send its `file_id`",
    setting="file_hosts",
)


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file to be extracted; `key` identifies its content in the cache."""

    key: str
    filename: str
    media_type: str
    pieces: AsyncIterator[bytes]


class FileTexts:
    """Replaces `input_file` parts by the text of their files: uploaded files, files inside the
    part, and files that `web` fetches."""

    def __init__(self, files: FileStore, extractor: Extractor, web: WebFiles) -> None:
        self._files = files
        self._web = web
        self._extractor = extractor
        self._texts: OrderedDict[str, str] = OrderedDict()  # LRU cache, the latest use last
        self._characters = 0
        # by the key of the file
        self._extraction_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def read(
        self,
        items: Sequence[JsonObject],
        where: str | None = None,
        fetched: FetchedFiles | None = None,
    ) -> list[JsonObject]:
        """Returns the items with text in place of files. `where` is the path of their list, None
        for items of earlier turns; `fetched` collects fetched files. Raises `InvalidRequest` for
        a file that cannot be read."""
        read = partial(self.read_part, fetched=fetched)
        return await read_parts(items, where, _is_file, read)

    async def read_part(
        self, part: Part, where: str, fetched: FetchedFiles | None = None
    ) -> JsonObject:
        """Returns the text of an `input_file`; `where` is its path. Raises `InvalidRequest`."""
        file = await self._file(part, where, fetched)
        text = await self._text(file, where)
        return {"type": "input_text", "text": f"[File {file.filename or 'without a name'}]\n{text}"}

    async def _text(self, file: _File, where: str) -> str:
        """Returns a file's text. Concurrent requests for the same file share one extraction."""
        lock = self._extraction_locks.setdefault(file.key, asyncio.Lock())
        async with lock:
            text = self._texts.get(file.key)
            if text is None:
                text = await self._extract(file, where)
            self._cache(file.key, text)
        return text

    def _cache(self, key: str, text: str) -> None:
        if len(text) > CACHE_CHARACTERS:
            return
        self._characters += len(text) - len(self._texts.pop(key, ""))
        self._texts[key] = text
        while self._characters > CACHE_CHARACTERS:
            self._characters -= len(self._texts.popitem(last=False)[1])

    async def _extract(self, file: _File, where: str) -> str:
        try:
            with translate_store_errors("file"):
                extracted = await self._extractor.extract(
                    file.pieces, filename=file.filename, media_type=file.media_type
                )
        except ExtractionError as error:
            raise InvalidRequest(f"`{file.filename}`: {error}", param=where) from error
        except ReaderKilled as error:
            message = f"`{file.filename}`: {error}"
            raise ServiceUnavailable(message, param=where) from error
        return extracted.text

    async def _file(self, part: Part, where: str, fetched: FetchedFiles | None) -> _File:
        if part.get("file_id"):
            return await self._read_upload(part["file_id"], f"{where}.file_id")
        if part.get("file_data"):
            return await offload(_inline, part, f"{where}.file_data")
        if part.get("file_url"):
            return await self._fetch(part, where, fetched)
        raise InvalidRequest("A file needs `file_id`, `file_data` or `file_url`.", param=where)

    async def _fetch(self, part: Part, where: str, fetched: FetchedFiles | None) -> _File:
        if has_fetched(part):
            file = fetched_file(part)
        else:
            file = await self._web.fetch(part["file_url"], f"{where}.file_url")
            if fetched is not None:
                await fetched.add(where, file)
        filename = part.get("filename") or file.name
        return await asyncio.to_thread(_in_memory, filename, file.media_type, file.content)

    async def _read_upload(self, id: str, where: str) -> _File:
        try:
            with translate_store_errors("file"):
                stored = await self._files.get(id)
        except NotFound as error:
            raise InvalidRequest(error.message, param=where) from error
        return _File(
            key=stored.id,
            filename=stored.filename,
            media_type=stored.media_type,
            pieces=self._files.read(stored, 0, stored.size_bytes),
        )


def _is_file(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "input_file"


def _inline(part: Part, where: str) -> _File:
    data = part["file_data"]
    url = parse_data_url(data)
    try:
        content = decode_base64(url.base64 if url else data)
    except ValueError as error:
        raise InvalidRequest(
            "`file_data` must be base64, or a data: URL with base64 in it.", param=where
        ) from error
    return _in_memory(part.get("filename") or "", url.media_type if url else "", content)


def _in_memory(filename: str, media_type: str, content: bytes) -> _File:
    named = f"{filename}\0{media_type}\0".encode("utf-8", "surrogatepass")
    return _File(
        key=hashlib.sha256(named + content).hexdigest(),
        filename=filename,
        media_type=media_type,
        pieces=one_piece(content),
    )
