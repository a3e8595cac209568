"""Which files a purpose takes: of which types, told by their names, and how large. Pure.

What is in a file is found out where it is used; this tells whoever picked the wrong file before
anything is made of it.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from llm_backend.errors import InvalidRequest
from llm_backend.settings import Settings

__all__ = ["check_size", "check_type"]

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


def check_size(size_bytes: int, purpose: str, settings: Settings, *, param: str) -> None:
    """Raises `InvalidRequest` for a file that is meant as the input of a batch, and too large."""
    limit_bytes = settings.batch_file_limit_bytes
    if purpose == "batch" and size_bytes > limit_bytes:
        raise InvalidRequest(
            f"The file is too large: one for `batch` has at most {limit_bytes} bytes on this "
            f"server, and this one has {size_bytes}.",
            param=param,
        )
