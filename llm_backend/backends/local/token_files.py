"""Vocabulary files of OpenAI's encodings, as in the cache of `tiktoken`.

The files are never downloaded. The package is not needed: detokenizing requires only the list of
tokens.
"""

import asyncio
import binascii
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

Pieces = Mapping[int, bytes]

# `tiktoken` names its cached files by the SHA-1 of their URL.
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
SHA256: Mapping[str, str] = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
"""The SHA-256 of each encoding's file, by its name."""


class TokenFiles:
    """Vocabulary files in a folder; `sha256` are the expected hashes by encoding."""

    def __init__(self, folder: Path | None, sha256: Mapping[str, str] = SHA256) -> None:
        self._folder = folder
        self._sha256 = sha256
        self._cache: dict[str, Pieces | None] = {}
        self._lock = asyncio.Lock()

    async def load(self, encoding: str) -> Pieces | None:
        """Returns the bytes of each token of an encoding; None if its file is missing or has
        another hash."""
        async with self._lock:
            if encoding not in self._cache:
                self._cache[encoding] = await asyncio.to_thread(self._read, encoding)
            return self._cache[encoding]

    def _read(self, encoding: str) -> Pieces | None:
        if self._folder is None:
            return None
        name = hashlib.sha1(_ADDRESS.format(encoding).encode(), usedforsecurity=False).hexdigest()
        file = self._folder / name
        fields = {"encoding": encoding, "file": str(file)}
        try:
            content = file.read_bytes()
        except OSError as error:
            log.warning("encoding_not_read", extra={**fields, "reason": str(error)})
            return None
        if hashlib.sha256(content).hexdigest() != self._sha256[encoding]:
            log.warning("encoding_not_read", extra={**fields, "reason": "its content is another"})
            return None
        return _parse(content)


def _parse(content: bytes) -> Pieces:
    """Parses a file: a line has a token's bytes in base64, and its id."""
    pieces: dict[int, bytes] = {}
    for line in content.splitlines():
        piece, _, token = line.partition(b" ")
        if piece:
            pieces[int(token)] = binascii.a2b_base64(piece)
    return pieces
