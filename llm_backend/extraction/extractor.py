"""Extractor: files to text, within bounds of time and memory.

Plain text is decoded in this process. Any other file is read by a child process (`reader`), which
is killed beyond its bounds. So a PDF without an end, an archive that unpacks to terabytes, or a bug
of a library does no other harm.

The child processes are a queue with two levels. Each file begins with a short time slice. A longer
file continues as long as another child process is left for short files; otherwise it waits, and is
read again from its beginning. So long files do not hold up short ones.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO

from llm_backend.extraction.child import Child, ExtractionLimits, reading
from llm_backend.extraction.errors import ReaderKilled, TakesLong, TooMuchWork, UnreadableFile
from llm_backend.extraction.formats import HEAD_BYTES, Format, format_of
from llm_backend.extraction.plain import decode

__all__ = ["Extracted", "ExtractionLimits", "Extractor"]

_HELD_BYTES = 1024 * 1024  # of a file in memory; a larger one is on disk
_FILLS = 4  # files that are fetched and decoded at once
_TRIES = 2  # attempts if the child process is killed from outside


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A file's text. `format` of the text: `TEXT`, `MARKDOWN` or `TABLE` (with a head line)."""

    text: str
    format: Format


class Extractor:
    """Extracts text from files of all kinds; one object is shared by all requests."""

    def __init__(self, limits: ExtractionLimits | None = None) -> None:
        self._limits = limits or ExtractionLimits()
        self._permits = asyncio.Semaphore(self._limits.at_once)
        self._fills = asyncio.Semaphore(_FILLS)
        # Child processes for long files.
        self._long = asyncio.Semaphore(self._limits.at_once - 1)

    async def extract(
        self,
        pieces: AsyncIterator[bytes],
        *,
        filename: str,
        media_type: str = "",
        only_short: bool = False,
    ) -> Extracted:
        """Returns the text of a file whose bytes are `pieces`. Raises `ExtractionError`,
        `ReaderKilled` and errors of `pieces`. With `only_short`, raises `TakesLong` for a file that
        is not read in one time slice."""
        with tempfile.SpooledTemporaryFile(_HELD_BYTES) as file:
            async with self._fills:
                await _fill(file, pieces)
                head = file.read(HEAD_BYTES)
                file.seek(0)
                format = format_of(head, filename, media_type)
                if format.is_text:
                    text = await asyncio.to_thread(self._decoded, file)
                    return Extracted(text=text, format=format)
                file.rollover()  # the child process gets it as a file
            text = _some(await self._read_persistently(file, format, only_short), format)
        is_marked = format in (Format.HTML, Format.DOCX)
        return Extracted(text=text, format=Format.MARKDOWN if is_marked else Format.TEXT)

    def _decoded(self, file: IO[bytes]) -> str:
        limit = self._limits.text_bytes
        data = file.read(limit + 1)
        if len(data) > limit:
            raise TooMuchWork(f"The file holds more than {limit} bytes of text.")
        return _some(decode(data), Format.TEXT)

    async def _read_persistently(self, file: IO[bytes], format: Format, only_short: bool) -> str:
        for _ in range(_TRIES - 1):
            try:
                return await self._read(file, format, only_short)
            except ReaderKilled:
                continue
        return await self._read(file, format, only_short)

    async def _read(self, file: IO[bytes], format: Format, only_short: bool) -> str:
        async with self._permits, reading(file, format, self._limits) as child:
            if await self._ends_within_slice(child):
                return await child.text()
            if only_short:
                raise TakesLong
            if not self._long.locked():
                async with self._long:
                    return await self._rest(child)
        async with self._long, self._permits, reading(file, format, self._limits) as child:
            return await self._rest(child)

    async def _ends_within_slice(self, child: Child) -> bool:
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await child.ends_within_slice(self._limits.slice_s)
        except TimeoutError:  # all processors are busy
            return False

    async def _rest(self, child: Child) -> str:
        if await child.ends_within(self._limits.timeout_s):
            return await child.text()
        raise TooMuchWork(f"Reading the file takes longer than {self._limits.timeout_s:g} s.")


async def _fill(file: IO[bytes], pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        file.write(piece)  # as fast as the page cache
    file.seek(0)


def _some(text: str, format: Format) -> str:
    if not text.strip():
        hint = " Maybe its pages are pictures." if format is Format.PDF else ""
        raise UnreadableFile(f"The file holds no text.{hint}")
    return text
