"""Vector store files: create, list, get, update attributes, delete, read content."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.rendering.json_response import (
    JsonResponse,
    deleted_response,
    list_response,
)
from llm_backend.controllers.rendering.poll_interval import poll_headers
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.vector_store_services import (
    VectorStoreServices,
    translate_index_errors,
)
from llm_backend.controllers.vector_stores.ingestion.new_files import new_files
from llm_backend.controllers.vector_stores.request_values import attributes_from
from llm_backend.controllers.vector_stores.response_objects import content_page, file_object
from llm_backend.controllers.vector_stores.stores import page_of
from llm_backend.store import StoredVectorFile
from llm_backend.store.vector_stores import Attribute

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

of_a_file = local_or_upstream("vector store", "vector_store_id", part="file")


@local_or_upstream("vector store", "vector_store_id")
async def create_vector_store_file(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores/{vector_store_id}/files`"""
    vector_stores, store_id = services.vector_stores, request.path["vector_store_id"]
    body: api.CreateVectorStoreFileRequest = request.body
    store = await vector_stores.stores.get(store_id)
    embedder = await vector_stores.embedders.get(store.embedding_model)
    (file,) = await new_files(services, request.caller, [body], embedder)
    return JsonResponse(file_object(await vector_stores.stores.add_file(store_id, file)))


@local_or_upstream("vector store", "vector_store_id")
async def list_vector_store_files(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores/{vector_store_id}/files`"""
    page = await services.vector_stores.stores.files(
        request.path["vector_store_id"], **page_of(request), status=request.query.get("filter")
    )
    return list_response(page, file_object)


@of_a_file
async def get_vector_store_file(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores/{vector_store_id}/files/{file_id}`"""
    stores, path = services.vector_stores.stores, request.path
    file = file_object(await stores.file(path["vector_store_id"], path["file_id"]))
    is_done = file["status"] != "in_progress"
    return JsonResponse(
        file, headers=None if is_done else poll_headers(file["created_at"], stores.now)
    )


@of_a_file
async def update_vector_store_file_attributes(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores/{vector_store_id}/files/{file_id}`"""
    vector_stores, path = services.vector_stores, request.path
    await vector_stores.stores.get(path["vector_store_id"])
    body: api.UpdateVectorStoreFileAttributesRequest = request.body
    attributes = attributes_from(body["attributes"])
    file = await update_attributes(
        vector_stores, path["vector_store_id"], path["file_id"], attributes
    )
    return JsonResponse(file_object(file))


@of_a_file
async def delete_vector_store_file(services: Services, request: ApiRequest) -> Response:
    """`DELETE /vector_stores/{vector_store_id}/files/{file_id}`"""
    stores, path = services.vector_stores.stores, request.path
    await stores.delete_file(path["vector_store_id"], path["file_id"])
    return deleted_response(path["file_id"], "vector_store.file.deleted")


@of_a_file
async def retrieve_vector_store_file_content(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores/{vector_store_id}/files/{file_id}/content`"""
    stores, path = services.vector_stores.stores, request.path
    return JsonResponse(content_page(await stores.text(path["vector_store_id"], path["file_id"])))


async def update_attributes(
    vector_stores: VectorStoreServices,
    store_id: str,
    file_id: str,
    attributes: Mapping[str, Attribute],
) -> StoredVectorFile:
    """Sets the attributes and returns the file. The last of concurrent updates wins, in the
    database and in the index. If the index is unreachable, nothing changes. Raises `Missing`."""
    file = await vector_stores.stores.file(store_id, file_id)
    if file.status == "completed":
        await _update_index(vector_stores, file, attributes)
    file = await vector_stores.stores.set_attributes(store_id, file_id, attributes)
    indexed = None
    # A concurrent update may have changed the attributes since the index was updated.
    while file.status == "completed" and file.attributes != indexed:
        indexed = file.attributes
        await _update_index(vector_stores, file, indexed)
        file = await vector_stores.stores.file(store_id, file_id)
    return file


async def _update_index(
    vector_stores: VectorStoreServices, file: StoredVectorFile, attributes: Mapping[str, Attribute]
) -> None:
    with translate_index_errors():
        await vector_stores.index.set_attributes(file.store_id, file.document, attributes)
