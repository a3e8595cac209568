"""Files: upload, list, get, download, delete.

The setting `files` decides where new files are stored and which ones are listed. A request for an
unknown id is relayed to the upstream, if there is one.
"""

import time
import uuid
from typing import TYPE_CHECKING, Any, cast

from starlette.responses import Response

from llm_backend.contract.forms.form import FRAMING_BYTES
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.files.download import Download
from llm_backend.controllers.files.file_types import check_size, check_type
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import JsonResponse, list_response
from llm_backend.controllers.rendering.page_query import page_arguments
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.store import StoredFile

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

DEFAULT_LIMIT = 10_000  # OpenAI's


async def create_file(services: Services, request: ApiRequest) -> Response:
    """`POST /files`: streams the bytes to the object store."""
    if services.settings.files == "upstream":
        return await relay(services, request)
    assert request.form is not None, "the operation takes a form"
    with translate_store_errors("file"):
        await services.files.check_capacity(declared_bytes(request))
    part = await request.form.file("file", limit_bytes=services.settings.upload_limit_bytes)
    with translate_store_errors("file"):
        async with services.files.blobs.writing(part.pieces) as blob:
            fields = await request.form.fields()
            purpose = fields.get("purpose", "assistants")
            check_type(part.filename, purpose, param="file")
            check_size(blob.size_bytes, purpose, services.settings, param="file")
            created_at = int(time.time())
            expiry = fields.get("expires_after")
            file = StoredFile(
                id=new_file_id(),
                created_at=created_at,
                purpose=purpose,
                filename=part.filename,
                media_type=part.media_type,
                content=(blob,),
                expires_at=created_at + expiry["seconds"] if expiry else None,
            )
            await services.files.add(file)
    return JsonResponse(file_object(file))


async def list_files(services: Services, request: ApiRequest) -> Response:
    """`GET /files`"""
    if services.settings.files == "upstream":
        return await relay(services, request)
    query: api.ListFilesQuery = request.query
    with translate_store_errors("file"):
        page = await services.files.list(
            purpose=query.get("purpose"),
            **page_arguments(query, limit=DEFAULT_LIMIT),
        )
    return list_response(page, file_object)


@local_or_upstream("file", "file_id")
async def retrieve_file(services: Services, request: ApiRequest) -> Response:
    """`GET /files/{file_id}`"""
    return JsonResponse(file_object(await services.files.get(request.path["file_id"])))


@local_or_upstream("file", "file_id")
async def download_file(services: Services, request: ApiRequest) -> Response:
    """`GET /files/{file_id}/content`: the whole file, or the requested `Range`."""
    file = await services.files.get(request.path["file_id"])
    return await Download(services.files, file, request).begin()


@local_or_upstream("file", "file_id")
async def delete_file(services: Services, request: ApiRequest) -> Response:
    """`DELETE /files/{file_id}`"""
    file_id = request.path["file_id"]
    await services.files.delete(file_id)
    answer: api.DeleteFileResponse = {"id": file_id, "object": "file", "deleted": True}
    return JsonResponse(answer)


def declared_bytes(request: ApiRequest) -> int:
    """Returns the size of a form's file as `Content-Length` implies it; 0 without this header."""
    announced = request.http.headers.get("content-length", "")
    return max(0, int(announced) - FRAMING_BYTES) if announced.isdecimal() else 0


def new_file_id() -> str:
    """Returns a new file id."""
    return f"file-{uuid.uuid4().hex}"


def file_object(file: StoredFile) -> "api.OpenAIFile":
    """Renders a file."""
    answer: api.OpenAIFile = {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_at,
        "filename": file.filename,
        "purpose": cast("Any", file.purpose),
        "status": "processed",
    }
    if file.expires_at is not None:
        answer["expires_at"] = file.expires_at
    return answer
