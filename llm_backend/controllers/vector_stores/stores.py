"""Vector stores: create, list, get, modify, delete."""

import uuid
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import (
    JsonResponse,
    deleted_response,
    list_response,
)
from llm_backend.controllers.rendering.page_query import page_arguments, refuse_both_cursors
from llm_backend.controllers.rendering.poll_interval import poll_headers
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.controllers.vector_stores.ingestion.new_files import NewFileEntry, new_files
from llm_backend.controllers.vector_stores.request_values import expiry_from
from llm_backend.controllers.vector_stores.response_objects import store_object
from llm_backend.json_types import JsonObject
from llm_backend.store import StoredVectorStore

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_vector_store(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores`"""
    if services.settings.vector_stores == "upstream":
        return await relay(services, request)
    body: api.CreateVectorStoreRequest = request.body
    vector_stores = services.vector_stores
    vector_stores.check()
    embedder = await vector_stores.embedders.default_model()
    entries: list[NewFileEntry] = [
        {"file_id": file_id, "chunking_strategy": body.get("chunking_strategy")}
        for file_id in body.get("file_ids") or ()
    ]
    files = await new_files(services, request.caller, entries, embedder, where="file_ids[{}]")
    store = StoredVectorStore(
        id=f"vs_{uuid.uuid4().hex}",
        created_at=vector_stores.stores.now,
        name=body.get("name") or "",
        description=body.get("description"),
        metadata=body.get("metadata") or {},
        expires_after_days=expiry_from(body.get("expires_after")),
        last_active_at=vector_stores.stores.now,
        embedding_model=embedder.name,
    )
    with translate_store_errors("vector store"):
        await vector_stores.stores.add(store, files)
        return _store_answer(services, await vector_stores.stores.get_with_counts(store.id))


async def list_vector_stores(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores`"""
    if services.settings.vector_stores == "upstream":
        return await relay(services, request)
    stores = services.vector_stores.stores
    with translate_store_errors("vector store"):
        page = await stores.list(**page_of(request))
    return list_response(page, lambda store: store_object(store, stores.now))


@local_or_upstream("vector store", "vector_store_id")
async def get_vector_store(services: Services, request: ApiRequest) -> Response:
    """`GET /vector_stores/{vector_store_id}`"""
    return _store_answer(
        services,
        await services.vector_stores.stores.get_with_counts(request.path["vector_store_id"]),
    )


@local_or_upstream("vector store", "vector_store_id")
async def modify_vector_store(services: Services, request: ApiRequest) -> Response:
    """`POST /vector_stores/{vector_store_id}`"""
    body: api.UpdateVectorStoreRequest = request.body
    values: JsonObject = {}
    if body.get("name") is not None:
        values["name"] = body["name"]
    if "metadata" in body:
        values["metadata"] = body["metadata"] or {}
    if "expires_after" in body:
        values["expires_after_days"] = expiry_from(body["expires_after"])
    changed = await services.vector_stores.stores.update(request.path["vector_store_id"], values)
    return _store_answer(services, changed)


@local_or_upstream("vector store", "vector_store_id")
async def delete_vector_store(services: Services, request: ApiRequest) -> Response:
    """`DELETE /vector_stores/{vector_store_id}`"""
    store_id = request.path["vector_store_id"]
    await services.vector_stores.stores.delete(store_id)
    return deleted_response(store_id, "vector_store.deleted")


def page_of(request: ApiRequest) -> JsonObject:
    """Parses the page query. Raises `InvalidRequest` if both `after` and `before` are given."""
    refuse_both_cursors(request.query)
    return {**page_arguments(request.query), "before": request.query.get("before")}


def _store_answer(services: Services, store: StoredVectorStore) -> Response:
    now = services.vector_stores.stores.now
    body = store_object(store, now)
    if body["status"] != "in_progress":
        return JsonResponse(body)
    unfinished = body["file_counts"]["in_progress"]
    return JsonResponse(
        body, headers=poll_headers(store.last_active_at, now, unfinished=unfinished)
    )
