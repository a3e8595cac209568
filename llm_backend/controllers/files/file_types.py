"""Checks a file's type, by its name, and its size against its purpose. Pure.

The content of a file is validated on use; this check refuses an obviously wrong file at upload.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath

from llm_backend.errors import InvalidRequest
from llm_backend.settings import Settings

_LINES = (".jsonl",)
_IMAGES = (".gif", ".jpeg", ".jpg", ".png", ".webp")  # formats that vision models accept
_TYPES: Mapping[str, tuple[str, ...]] = {
    "batch": _LINES,
    "fine-tune": _LINES,
    "vision": _IMAGES,
}
"""Allowed file name suffixes by purpose; any other purpose accepts every type."""


def check_type(filename: str, purpose: str, *, param: str) -> None:
    """Raises `InvalidRequest` for a file name suffix that the purpose does not accept. A name
    without a suffix passes."""
    suffixes, suffix = _TYPES.get(purpose), PurePosixPath(filename).suffix.lower()
    if suffixes is None or not suffix or suffix in suffixes:
        return
    allowed = " or ".join(f"`{one}`" for one in suffixes)
    raise InvalidRequest(
        f"The name of a file for `{purpose}` must end with {allowed}.", param=param
    )


def check_size(size_bytes: int, purpose: str, settings: Settings, *, param: str) -> None:
    """Raises `InvalidRequest` for a batch input file that is too large."""
    limit_bytes = settings.batch_file_limit_bytes
    if purpose == "batch" and size_bytes > limit_bytes:
        raise InvalidRequest(
            f"The file is too large: one for `batch` may have at most {limit_bytes} bytes on this "
            f"server, and this one has {size_bytes}.",
            param=param,
        )
