"""Block hashes of token lists. A block's hash covers all tokens before it too, so two lists that
have a hash in common are the same up to the end of its block. Pure."""

import hashlib
from array import array
from collections import abc

from llm_backend.engine.messages import PREFIX_BLOCK

_DIGEST_BYTES = 16
_TOKEN = "i"  # noqa: S105 # array type of a token: four bytes, in this machine's order
_BLOCK_BYTES = PREFIX_BLOCK * array(_TOKEN).itemsize


def block_hashes(tokens: abc.Sequence[int]) -> tuple[bytes, ...]:
    """Hashes of the whole blocks of a token list, which has no media tokens."""
    data, chain, hashes = token_bytes(tokens), b"", []
    for start in range(0, len(data) - _BLOCK_BYTES + 1, _BLOCK_BYTES):
        block = data[start : start + _BLOCK_BYTES]
        chain = hashlib.blake2b(chain + block, digest_size=_DIGEST_BYTES).digest()
        hashes.append(chain)
    return tuple(hashes)


def tokens_name(tokens: abc.Sequence[int]) -> str:
    """Name of a token list, for an entry or a file: the hash of all tokens."""
    return hashlib.blake2b(token_bytes(tokens), digest_size=_DIGEST_BYTES).hexdigest()


def token_bytes(tokens: abc.Sequence[int]) -> bytes:
    """The tokens as 32-bit numbers."""
    return array(_TOKEN, tokens).tobytes()


def plain_length(tokens: abc.Sequence[int]) -> int:
    """Number of tokens before the first image or audio."""
    return next((index for index, token in enumerate(tokens) if token < 0), len(tokens))
