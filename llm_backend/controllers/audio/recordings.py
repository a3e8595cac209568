"""Recordings that come in a form."""

from collections.abc import Mapping
from typing import IO

from llm_backend.contract.forms.form import FilePart
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.services import Services
from llm_backend.errors import Unsupported
from llm_backend.extras import install_command, is_installed
from llm_backend.json_types import JsonValue

RECORDING = "recording"
"""Kind of their temporary files."""


def check_codecs(field: str) -> None:
    """Raises `Unsupported` if recordings cannot be decoded here."""
    if not is_installed("audio"):
        raise Unsupported(
            f"Recordings need an extra, which is not installed: {install_command('audio')}.",
            param=field,
        )


async def read_recording(
    services: Services,
    request: ApiRequest,
    file: IO[bytes],
    *,
    field: str,
    limit_bytes: int,
    text_limits: Mapping[str, int] | None = None,
) -> tuple[FilePart, JsonValue]:
    """Writes the form's file to `file`; returns its part, which is read, and the other fields.
    `text_limits` are those of `Form.file`. Raises `InvalidRequest`, `TooLarge` and `OSError`."""
    assert request.form is not None, "the operation takes a form"
    part = await request.form.file(field, limit_bytes=limit_bytes, text_limits=text_limits)
    async for piece in part.pieces:
        with services.temporary_files.writing(RECORDING):
            file.write(piece)  # as fast as the page cache
    fields = await request.form.fields()
    if request.form_head is not None:
        request.form_head.close()  # the file is not stored twice while it is used
    return part, fields
