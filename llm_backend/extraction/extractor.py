"""Extractor: files to text, within bounds of time and memory.

Plain text is decoded in this process. Any other file is read by a child process (`reader`), which
is killed beyond its bounds. So a PDF without an end, an archive that unpacks to terabytes, or a bug
of a library does no other harm.

The child processes serve a queue with two levels. Each file begins with a short time slice. A
longer file continues as long as another child process is left for short files; otherwise it waits,
and is read again from its beginning. So long files do not hold up short ones.
"""

import asyncio
import codecs
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import IO

from llm_backend.extraction.child import ExtractionLimits, ReaderProcess, start_reader
from llm_backend.extraction.errors import (
    ExtractionLimitExceeded,
    NotShort,
    ReaderKilled,
    UnreadableFile,
    UnsupportedFile,
)
from llm_backend.extraction.formats import HEAD_BYTES, Format, detect_format

_MEMORY_BYTES = 1024 * 1024  # bytes of a file in memory; a larger one is on disk
_CONCURRENT_DECODES = 4  # files that are fetched and decoded concurrently
_TRIES = 2  # attempts if the child process is killed from outside
Writing = Callable[[], AbstractContextManager[None]]

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True, kw_only=True)
class ExtractedText:
    """A file's text. `format` of the text: `TEXT`, `MARKDOWN` or `TABLE` (with a head line)."""

    text: str
    format: Format


class Extractor:
    """Extracts text from files of all kinds; one object is shared by all requests. Temporary files
    are written within `writing`."""

    def __init__(
        self, limits: ExtractionLimits | None = None, writing: Writing = nullcontext
    ) -> None:
        self._limits = limits or ExtractionLimits()
        self._writing = writing
        self._permits = asyncio.Semaphore(self._limits.processes)
        self._decode_permits = asyncio.Semaphore(_CONCURRENT_DECODES)
        # Child processes for long files.
        self._long_permits = asyncio.Semaphore(self._limits.processes - 1)

    async def extract(
        self,
        chunks: AsyncIterator[bytes],
        *,
        filename: str,
        media_type: str = "",
        only_short: bool = False,
    ) -> ExtractedText:
        """Returns the text of a file whose bytes are `chunks`.

        Raises `ExtractionError`, `ReaderKilled` and errors of `chunks`. With `only_short`, raises
        `NotShort` for a file that is not read in one time slice.
        """
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as file:
            async with self._decode_permits:
                await self._copy(chunks, file)
                head = file.read(HEAD_BYTES)
                file.seek(0)
                format = detect_format(head, filename, media_type)
                if format.is_text:
                    text = await asyncio.to_thread(self._decode, file)
                    return ExtractedText(text=text, format=format)
                with self._writing():
                    file.rollover()  # the child process needs a file on disk
                    file.flush()
            text = _require_text(await self._read_with_retries(file, format, only_short), format)
        is_marked = format in (Format.HTML, Format.DOCX)
        return ExtractedText(text=text, format=Format.MARKDOWN if is_marked else Format.TEXT)

    async def _copy(self, chunks: AsyncIterator[bytes], file: IO[bytes]) -> None:
        async for chunk in chunks:
            with self._writing():
                file.write(chunk)  # fast: to the page cache
        with self._writing():
            file.seek(0)  # flushes the buffer

    def _decode(self, file: IO[bytes]) -> str:
        limit = self._limits.text_bytes
        data = file.read(limit + 1)
        if len(data) > limit:
            raise ExtractionLimitExceeded(f"The file holds more than {limit} bytes of text.")
        return _require_text(decode(data), Format.TEXT)

    async def _read_with_retries(self, file: IO[bytes], format: Format, only_short: bool) -> str:
        for _ in range(_TRIES - 1):
            try:
                return await self._read(file, format, only_short)
            except ReaderKilled:
                continue
        return await self._read(file, format, only_short)

    async def _read(self, file: IO[bytes], format: Format, only_short: bool) -> str:
        async with self._permits, start_reader(file, format, self._limits) as child:
            if await self._ends_within_slice(child):
                return await child.text()
            if only_short:
                raise NotShort
            if not self._long_permits.locked():
                async with self._long_permits:
                    return await self._finish(child)
        async with (
            self._long_permits,
            self._permits,
            start_reader(file, format, self._limits) as child,
        ):
            return await self._finish(child)

    async def _ends_within_slice(self, child: ReaderProcess) -> bool:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await child.ends_within_slice(self._limits.slice_s)
        except TimeoutError:  # all processors are busy
            return False

    async def _finish(self, child: ReaderProcess) -> str:
        if await child.ends_within(self._limits.timeout_s):
            return await child.text()
        raise ExtractionLimitExceeded(
            f"Reading the file takes longer than {self._limits.timeout_s:g} s."
        )


def _require_text(text: str, format: Format) -> str:
    if not text.strip():
        hint = " Its pages may be images." if format is Format.PDF else ""
        raise UnreadableFile(f"The file holds no text.{hint}")
    return text


def decode(data: bytes) -> str:
    """Decodes UTF-8, or UTF-16 with a byte order mark, and converts line ends to those of Unix.
    Raises `UnsupportedFile` for other bytes, such as binary files."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnsupportedFile(
            f"The file is not text in UTF-8 or UTF-16, from byte {error.start} on."
        ) from error
    if "\0" in text:
        raise UnsupportedFile("The file is not text: it holds NUL bytes.")
    return text.replace("\r\n", "\n").replace("\r", "\n")
