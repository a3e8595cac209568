"""Uploads: files in parts. Requests for an unknown upload go to the upstream, if there is one."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.files.file_types import check_size, check_type
from llm_backend.controllers.files.operations import declared_bytes, file_object, new_file_id
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, TooLarge
from llm_backend.store import Missing, PartLimits, StoredFile, StoredPart, StoredUpload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

LIFETIME_S = 3600  # OpenAI's


async def create_upload(services: Services, request: ApiRequest) -> Response:
    """`POST /uploads`"""
    settings = services.settings
    body: api.CreateUploadRequest = request.body
    if settings.files == "upstream":
        return await relay(services, request)
    if body["bytes"] > settings.parted_upload_limit_bytes:
        limit_bytes = settings.parted_upload_limit_bytes
        message = f"Invalid 'bytes': an upload may have at most {limit_bytes} bytes on this server."
        raise InvalidRequest(message, param="bytes")
    check_type(body["filename"], body["purpose"], param="filename")
    check_size(int(body["bytes"]), body["purpose"], settings, param="bytes")
    created_at, expiry = int(time.time()), body.get("expires_after")
    upload = StoredUpload(
        id=f"upload_{uuid.uuid4().hex}",
        created_at=created_at,
        purpose=body["purpose"],
        filename=body["filename"],
        media_type=body["mime_type"].partition(";")[0].strip().lower(),
        size_bytes=int(body["bytes"]),  # JSON may say 3.0
        expires_at=created_at + LIFETIME_S,
        file_lifetime_s=int(expiry["seconds"]) if expiry else None,
    )
    with translate_store_errors("upload"):
        await services.uploads.add(upload)
    return JsonResponse(_upload_object(upload))


async def add_upload_part(services: Services, request: ApiRequest) -> Response:
    """`POST /uploads/{upload_id}/parts`: streams the bytes to the object store."""
    settings, upload_id = services.settings, request.path["upload_id"]
    with translate_store_errors("upload"):
        upload = await _find_open_upload(services, upload_id)
        if upload is None:
            return await relay(services, request)
        await services.files.check_capacity(declared_bytes(request))
        assert request.form is not None, "the operation takes a form"
        data = await request.form.file("data", limit_bytes=settings.part_limit_bytes)
        pieces = _limit_part(upload, data.pieces)
        async with services.uploads.blobs.writing(pieces) as blob:
            await request.form.fields()
            part = StoredPart(
                id=f"part_{uuid.uuid4().hex}",
                created_at=int(time.time()),
                upload_id=upload_id,
                blob=blob,
            )
            limits = PartLimits(
                parts=settings.parts_limit, total_bytes=settings.parted_upload_limit_bytes
            )
            await services.uploads.add_part(part, limits)
    return JsonResponse(_part_object(part))


async def complete_upload(services: Services, request: ApiRequest) -> Response:
    """`POST /uploads/{upload_id}/complete`: joins the parts, in the given order, to a file."""
    upload_id = request.path["upload_id"]
    body: api.CompleteUploadRequest = request.body
    with translate_store_errors("upload"):
        if await _find_open_upload(services, upload_id) is None:
            return await relay(services, request)
        upload, file = await services.uploads.complete(
            upload_id, body["part_ids"], file_id=new_file_id(), md5=body.get("md5")
        )
    return JsonResponse(_upload_object(upload, file))


async def cancel_upload(services: Services, request: ApiRequest) -> Response:
    """`POST /uploads/{upload_id}/cancel`"""
    upload_id = request.path["upload_id"]
    with translate_store_errors("upload"):
        if await _find_open_upload(services, upload_id) is None:
            return await relay(services, request)
        upload = await services.uploads.cancel(upload_id)
    return JsonResponse(_upload_object(upload))


async def _find_open_upload(services: Services, upload_id: str) -> StoredUpload | None:
    """Returns the upload; None if the upstream must answer for it. Raises a store error for a
    closed upload, and `Missing` for an unknown one without an upstream."""
    try:
        return await services.uploads.check(upload_id)
    except Missing:
        if services.upstreams is None:
            raise
        return None


async def _limit_part(upload: StoredUpload, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Passes the pieces on; raises `TooLarge` if the part is larger than the whole upload."""
    size_bytes = 0
    async for piece in pieces:
        size_bytes += len(piece)
        if size_bytes > upload.size_bytes:
            message = f"The part is larger than the upload, which is of {upload.size_bytes} bytes."
            raise TooLarge(message, param="data")
        yield piece


def _upload_object(upload: StoredUpload, file: StoredFile | None = None) -> "api.Upload":
    return {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.size_bytes,
        "created_at": upload.created_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status.value,
        "expires_at": upload.expires_at,
        "file": None if file is None else file_object(file),
    }


def _part_object(part: StoredPart) -> "api.UploadPart":
    return {
        "id": part.id,
        "object": "upload.part",
        "created_at": part.created_at,
        "upload_id": part.upload_id,
    }
