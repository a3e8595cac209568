"""Files to text, within bounds.

What is text as it is gets decoded here. Anything else is read by a child process (`reader`) that
has so much time and memory and is killed when it wants more: a PDF that never ends, an archive that
unpacks to terabytes, or a bug of a library takes nobody along.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO

from llm_backend.extraction.errors import TooMuchWork, UnreadableFile
from llm_backend.extraction.formats import HEAD_BYTES, Format, format_of
from llm_backend.extraction.plain import decoded
from llm_backend.extraction.reader import READ, TOO_MUCH, UNREADABLE

__all__ = ["Extracted", "ExtractionLimits", "Extractor"]

_HELD_BYTES = 1024 * 1024  # of a file in memory; a larger one is on the disk


@dataclass(frozen=True, kw_only=True)
class ExtractionLimits:
    """What reading one file may take, and how many are read by child processes at once."""

    timeout_s: float = 60
    memory_bytes: int = 1024 * 1024 * 1024
    text_bytes: int = 20 * 1024 * 1024
    at_once: int = 2


@dataclass(frozen=True, kw_only=True)
class Extracted:
    """A file's text. `format` says what it is: `TEXT`, `MARKDOWN` or `TABLE` (with a head line)."""

    text: str
    format: Format


class Extractor:
    """Reads files of all kinds; shared by all who need that."""

    def __init__(self, limits: ExtractionLimits | None = None) -> None:
        self._limits = limits or ExtractionLimits()
        self._turns = asyncio.Semaphore(self._limits.at_once)

    async def extract(
        self, pieces: AsyncIterator[bytes], *, filename: str, media_type: str = ""
    ) -> Extracted:
        """The text of a file whose bytes are `pieces`. Raises `ExtractionError`, and whatever
        `pieces` raises."""
        async with self._turns:
            with tempfile.SpooledTemporaryFile(_HELD_BYTES) as file:
                await _fill(file, pieces)
                head = file.read(HEAD_BYTES)
                file.seek(0)
                format = format_of(head, filename, media_type)
                if format.is_text:
                    return Extracted(
                        text=await asyncio.to_thread(self._decoded, file), format=format
                    )
                text = await self._read(file, format)
        is_marked = format in (Format.HTML, Format.DOCX)
        return Extracted(text=text, format=Format.MARKDOWN if is_marked else Format.TEXT)

    def _decoded(self, file: IO[bytes]) -> str:
        limit = self._limits.text_bytes
        data = file.read(limit + 1)
        if len(data) > limit:
            raise TooMuchWork(f"The file holds more than {limit} bytes of text.")
        return _some(decoded(data), Format.TEXT)

    async def _read(self, file: "tempfile.SpooledTemporaryFile[bytes]", format: Format) -> str:
        limits = self._limits
        file.rollover()  # the child is given it as a file
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llm_backend.extraction.reader",
            format.value,
            str(round(limits.timeout_s) + 1),
            str(limits.memory_bytes),
            str(limits.text_bytes),
            stdin=file,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},  # and none of the server's secrets
        )
        try:
            async with asyncio.timeout(limits.timeout_s):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise TooMuchWork(
                f"Reading the file takes longer than {limits.timeout_s:g} s."
            ) from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _some(_text(process.returncode, output), format)


async def _fill(file: IO[bytes], pieces: AsyncIterator[bytes]) -> None:
    async for piece in pieces:
        file.write(piece)  # as the page cache takes it
    file.seek(0)


def _text(code: int | None, output: bytes) -> str:
    if code == READ:
        return output.decode()
    if code == UNREADABLE:
        raise UnreadableFile(output.decode())
    if code == TOO_MUCH:
        raise TooMuchWork(output.decode())
    raise UnreadableFile("The file is damaged, or reading it takes more than it may.")


def _some(text: str, format: Format) -> str:
    if not text.strip():
        hint = " Maybe its pages are pictures." if format is Format.PDF else ""
        raise UnreadableFile(f"The file holds no text.{hint}")
    return text
