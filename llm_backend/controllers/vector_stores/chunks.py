"""Chunking of a file's text, as for vector stores."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.request_values import chunking_from
from llm_backend.errors import InvalidRequest, ServiceUnavailable
from llm_backend.extraction import Chunking, ExtractionError, ReaderKilled, split_into_chunks
from llm_backend.store import StoredFile

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_chunks(services: Services, request: ApiRequest) -> Response:
    """`POST /chunks`: returns chunks without overlap."""
    body: api.CreateChunksRequest = request.body
    with translate_store_errors("file"):
        file = await services.files.get(body["file_id"] if "file_id" in body else body["id"])
    filename = body.get("filename") or file.filename
    chunks = await cancel_on_disconnect(
        request, _chunks(services, file, filename, body.get("chunk_capacity"))
    )
    answer: api.CreateChunksResponse = {"id": file.id, "filename": filename, "chunks": chunks}
    return JsonResponse(answer)


async def _chunks(
    services: Services, file: StoredFile, filename: str, capacity: int | None
) -> list[str]:
    embedder = await services.vector_stores.embedders.default_model()
    max_tokens = int(capacity or chunking_from(None, input_limit=embedder.input_limit).max_tokens)
    pieces = services.files.read(file, 0, file.size_bytes)
    try:
        with translate_store_errors("file"):
            extracted = await services.extractor.extract(
                pieces, filename=filename, media_type=file.media_type
            )
    except ExtractionError as error:
        raise InvalidRequest(str(error), param="file_id") from error
    except ReaderKilled as error:
        raise ServiceUnavailable(str(error), param="file_id") from error
    chunking = Chunking(max_tokens=max_tokens, overlap_tokens=0)
    chunks = await split_into_chunks(extracted.text, extracted.format, chunking, embedder.count)
    return [chunk.text for chunk in chunks]
