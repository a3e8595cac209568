"""Digest of the contract's sources, to detect a compiled contract that is out of date."""

from hashlib import blake2b
from pathlib import Path

FORMAT = 3
"""Format version, incremented whenever the meaning of the compiled files changes."""

SOURCES = ("openapi.yaml", "sdk.yaml", "overlay.yaml", "extensions.yaml", "operations.yaml")


def digest_of(openapi_dir: Path) -> str:
    """Returns the digest of the sources, in hex."""
    digest = blake2b(digest_size=16)
    for name in SOURCES:
        digest.update((openapi_dir / name).read_bytes())
    return digest.hexdigest()
