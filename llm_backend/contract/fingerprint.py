"""Which sources a compiled contract was made from."""

from hashlib import blake2b
from pathlib import Path

__all__ = ["FORMAT", "SOURCES", "digest_of"]

FORMAT = 2
"""Raised whenever the meaning of the compiled files changes."""

SOURCES = ("openapi.yaml", "overlay.yaml", "extensions.yaml", "operations.yaml")


def digest_of(openapi_dir: Path) -> str:
    """A fingerprint of the sources."""
    digest = blake2b(digest_size=16)
    for name in SOURCES:
        digest.update((openapi_dir / name).read_bytes())
    return digest.hexdigest()
