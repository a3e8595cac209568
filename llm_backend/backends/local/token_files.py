"""Files of OpenAI's encodings, as `tiktoken` keeps them in its cache: what each token stands for.

They are read and never fetched. The package itself is not needed: to read tokens takes no more than
their list.
"""

import asyncio
import binascii
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

__all__ = ["SHA256", "TokenFiles"]

log = logging.getLogger(__name__)

Pieces = Mapping[int, bytes]

# By these names `tiktoken` keeps its files: the SHA-1 of where they come from.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
SHA256: Mapping[str, str] = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
"""The SHA-256 of each encoding's file, by its name."""


class TokenFiles:
    """The encodings whose files lie in a folder; `sha256` is what each file must be."""

    def __init__(self, folder: Path | None, sha256: Mapping[str, str] = SHA256) -> None:
        self._folder = folder
        self._sha256 = sha256
        self._read: dict[str, Pieces | None] = {}
        self._reading = asyncio.Lock()

    async def pieces(self, encoding: str) -> Pieces | None:
        """The bytes of each token of an encoding; None where its file is not here, or another."""
        async with self._reading:
            if encoding not in self._read:
                self._read[encoding] = await asyncio.to_thread(self._pieces, encoding)
            return self._read[encoding]

    def _pieces(self, encoding: str) -> Pieces | None:
        if self._folder is None:
            return None
        name = hashlib.sha1(_ADDRESS.format(encoding).encode(), usedforsecurity=False).hexdigest()
        file = self._folder / name
        told = {"encoding": encoding, "file": str(file)}
        try:
            content = file.read_bytes()
        except OSError as error:
            log.warning("encoding_not_read", extra={**told, "reason": str(error)})
            return None
        if hashlib.sha256(content).hexdigest() != self._sha256[encoding]:
            log.warning("encoding_not_read", extra={**told, "reason": "its content is another"})
            return None
        return _parsed(content)


def _parsed(content: bytes) -> Pieces:
    """A line has a token's bytes in base64, and its id."""
    pieces: dict[int, bytes] = {}
    for line in content.splitlines():
        piece, _, token = line.partition(b" ")
        if piece:
            pieces[int(token)] = binascii.a2b_base64(piece)
    return pieces
