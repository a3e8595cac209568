"""File batches of vector stores: create, get, cancel, list files."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.rendering.json_response import JsonResponse, list_response
from llm_backend.controllers.rendering.poll_interval import poll_headers
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.ingestion.new_files import NewFileEntry, new_files
from llm_backend.controllers.vector_stores.response_objects import batch_object, file_object
from llm_backend.controllers.vector_stores.stores import page_of
from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

of_a_batch = local_or_upstream("vector store", "vector_store_id", part="file batch")


@local_or_upstream("vector store", "vector_store_id")
async def create_vector_store_file_batch(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores/{vector_store_id}/file_batches`"""
    vector_stores, store_id = services.vector_stores, request.path["vector_store_id"]
    body: api.CreateVectorStoreFileBatchRequest = request.body
    store = await vector_stores.stores.get(store_id)
    embedder = await vector_stores.embedders.get(store.embedding_model)
    where = "file_ids[{}]" if body.get("files") is None else "files[{}].file_id"
    entries = _files_of_body(body)
    files = await new_files(services, request.caller, entries, embedder, where=where)
    batch = await vector_stores.stores.add_batch(store_id, f"vsfb_{uuid.uuid4().hex}", files)
    return JsonResponse(batch_object(batch))


@of_a_batch
async def get_vector_store_file_batch(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores/{vector_store_id}/file_batches/{batch_id}`"""
    stores, path = services.vector_stores.stores, request.path
    batch = batch_object(await stores.batch(path["vector_store_id"], path["batch_id"]))
    if batch["status"] != "in_progress":
        return JsonResponse(batch)
    unfinished = batch["file_counts"]["in_progress"]
    return JsonResponse(
        batch, headers=poll_headers(batch["created_at"], stores.now, unfinished=unfinished)
    )


@of_a_batch
async def cancel_vector_store_file_batch(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel`"""
    stores, path = services.vector_stores.stores, request.path
    batch = await stores.cancel_batch(path["vector_store_id"], path["batch_id"])
    return JsonResponse(batch_object(batch))


@of_a_batch
async def list_files_in_vector_store_batch(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files`"""
    path = request.path
    page = await services.vector_stores.stores.files(
        path["vector_store_id"],
        **page_of(request),
        status=request.query.get("filter"),
        batch_id=path["batch_id"],
    )
    return list_response(page, file_object)


def _files_of_body(
    body: "api.CreateVectorStoreFileBatchRequest",
) -> "Sequence[NewFileEntry | api.CreateVectorStoreFileRequest]":
    files = body.get("files")
    if files is not None and body.get("file_ids") is not None:
        raise InvalidRequest("Give either `file_ids` or `files`.", param="files")
    if files is not None:
        return files
    attributes, chunking = body.get("attributes"), body.get("chunking_strategy")
    return [
        {"file_id": file_id, "attributes": attributes, "chunking_strategy": chunking}
        for file_id in body["file_ids"]
    ]
