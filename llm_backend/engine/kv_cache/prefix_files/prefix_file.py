"""Format of a prefix file: digest of the model, tokens, and the state of their cells.

A file is written under a temporary name and then renamed. It has a checksum of its contents, which
detects a file that was torn by a crash or has another format.
"""

import contextlib
import os
import struct
import zlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.kv_cache.blocks import token_bytes
from llm_backend.engine.kv_cache.prefix import Prefix

_MAGIC = b"LLMBPFX1"
_HEAD = struct.Struct("<8s16sIIQ")  # magic, model, checksum, tokens, bytes of the state
_TOKEN_BYTES = 4


class BadPrefix(Exception):
    """The file has no prefix of this model, or is damaged; the message says which."""


def file_bytes(tokens: int, state_bytes: int) -> int:
    """Size in bytes of a file of this number of tokens with their state."""
    return _HEAD.size + _TOKEN_BYTES * tokens + state_bytes


def write_prefix(path: Path, model: bytes, prefix: Prefix) -> None:
    """Writes a file atomically, with mode 0600. Raises `OSError`."""
    tokens = token_bytes(prefix.tokens)
    checksum = _checksum(model, tokens, prefix.state)
    head = _HEAD.pack(_MAGIC, model, checksum, len(prefix.tokens), prefix.state.size)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb", opener=_open_private) as file:
            file.write(head)
            file.write(tokens)
            file.write(prefix.state.data)
        unfinished.replace(path)
    except BaseException:
        # the first error is the one to report
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def read_tokens(path: Path, model: bytes) -> list[int]:
    """Reads the tokens of a file, without verifying its checksum. Raises `OSError` or
    `BadPrefix`."""
    with path.open("rb") as file:
        return _tokens(_read_until_state(file, path, model)[1])


def read_prefix(path: Path, model: bytes) -> Prefix:
    """Reads and verifies a file, and sets its time of last use. Raises `OSError` or `BadPrefix`."""
    with path.open("rb") as file:
        checksum, tokens, size = _read_until_state(file, path, model)
        state = np.empty(size, dtype=np.uint8)
        read = file.readinto(state.data)
        os.utime(file.fileno())
    if read != size or checksum != _checksum(model, tokens, state):
        raise BadPrefix(f"{path.name} is damaged: its checksum differs")
    return Prefix(tokens=_tokens(tokens), state=state)


def _read_until_state(
    file: Any, path: Path, model: bytes
) -> tuple[int, bytes, int]:  # any binary file
    """Reads the checksum, the tokens and the size of the state, up to the beginning of the
    state."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        raise BadPrefix(f"{path.name} is not a prefix")
    _, model_of_file, checksum, count, size = _HEAD.unpack(head)
    if model_of_file != model:
        raise BadPrefix(f"{path.name} is of another model file or another version")
    whole = _HEAD.size + _TOKEN_BYTES * count + size
    if os.fstat(file.fileno()).st_size != whole:
        raise BadPrefix(f"{path.name} is not whole")
    return checksum, file.read(_TOKEN_BYTES * count), size


def _tokens(tokens: bytes) -> list[int]:
    return list(array("i", tokens))


def _checksum(model: bytes, tokens: bytes, state: NDArray[np.uint8]) -> int:
    return zlib.crc32(state.data, zlib.crc32(tokens, zlib.crc32(model)))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
