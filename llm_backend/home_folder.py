"""Paths that begin with `~`."""

import os
from pathlib import Path


def expand_home(path: str | Path) -> Path:
    """Returns the path with a `~` or `~USER` at its beginning replaced by that user's home folder;
    unchanged if there is no such user, as shells do."""
    return Path(os.path.expanduser(path))  # the method of `Path` raises `RuntimeError`
