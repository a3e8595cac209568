"""Which types of files a purpose takes, told by their names. Pure.

What is in a file is found out where it is used; this tells whoever picked the wrong file before
anything is made of it.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from llm_backend.errors import InvalidRequest

__all__ = ["check_type"]

_LINES = (".jsonl",)
_PICTURES = (".gif", ".jpeg", ".jpg", ".png", ".webp")  # those that can be shown to models
_TYPES: Mapping[str, tuple[str, ...]] = {
    "batch": _LINES,
    "fine-tune": _LINES,
    "vision": _PICTURES,
}
"""By purpose, the ends of names; any type is for a purpose that is not here."""


def check_type(filename: str, purpose: str, *, param: str) -> None:
    """Raises `InvalidRequest` for a name of another type than those that the purpose takes. A name
    that tells no type passes."""
    taken, suffix = _TYPES.get(purpose), PurePosixPath(filename).suffix.lower()
    if taken is None or not suffix or suffix in taken:
        return
    raise InvalidRequest(
        f"The name of a file for `{purpose}` ends with {' or '.join(f'`{one}`' for one in taken)}.",
        param=param,
    )
