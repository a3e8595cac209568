"""Vocabulary files of OpenAI's encodings, in the cache folder of `tiktoken`."""

import base64
import hashlib
from pathlib import Path

import pytest

from llm_backend.backends.local.token_files import SHA256, TokenFiles

NAME = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # cl100k_base's in tiktoken's cache
PIECES = [bytes([byte]) for byte in range(256)] + [b"he", b"hel", b"lo", b" w", "é".encode()]


def file_in(folder: Path) -> dict[str, str]:
    """Writes an encoding's file of these pieces; returns its hash by name."""
    lines = [f"{base64.b64encode(piece).decode()} {id}\n" for id, piece in enumerate(PIECES)]
    content = "".join(lines).encode()
    (folder / NAME).write_bytes(content)
    return {"cl100k_base": hashlib.sha256(content).hexdigest()}


async def test_token_file_maps_tokens_to_bytes(tmp_path):
    files = TokenFiles(tmp_path, file_in(tmp_path))

    assert await files.load("cl100k_base") == dict(enumerate(PIECES))


async def test_token_file_is_read_once(tmp_path):
    files = TokenFiles(tmp_path, file_in(tmp_path))
    first = await files.load("cl100k_base")
    (tmp_path / NAME).unlink()

    assert await files.load("cl100k_base") is first


@pytest.mark.parametrize("case", ["no folder", "no file", "another file"])
async def test_missing_or_different_token_file_is_not_used(tmp_path, case):
    if case == "another file":
        file_in(tmp_path)
    files = TokenFiles(None if case == "no folder" else tmp_path, SHA256)

    assert await files.load("cl100k_base") is None
