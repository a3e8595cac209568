"""Batch operations: create, list, retrieve, cancel. A batch whose input file is not stored here is
relayed."""

import time
import uuid
from typing import TYPE_CHECKING, cast

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.files.file_types import check_size
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import JsonResponse, list_response
from llm_backend.controllers.rendering.page_query import DEFAULT_LIMIT
from llm_backend.controllers.rendering.poll_interval import poll_headers
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.json_types import without_nulls
from llm_backend.store import Missing, StoredBatch, TokenCounts

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

PURPOSE = "batch"
UNFINISHED = ("validating", "in_progress", "finalizing", "cancelling")
WINDOWS_S = {"24h": 24 * 3600}  # OpenAI's completion windows


async def create_batch(services: Services, request: ApiRequest) -> Response:
    """`POST /batches`: the input is validated later, in the background."""
    body: api.CreateBatchRequest = request.body
    file_id = body["input_file_id"]
    with translate_store_errors("batch"):
        try:
            file = await services.files.get(file_id)
        except Missing as missing:
            if services.upstreams is None:
                message = f"No file has the id `{file_id}`."
                raise NotFound(message, param="input_file_id") from missing
            return await relay(services, request)
        if file.purpose != PURPOSE:
            message = f"The file `{file_id}` is for `{file.purpose}`; it must be for `{PURPOSE}`."
            raise InvalidRequest(message, param="input_file_id")
        check_size(file.size_bytes, PURPOSE, services.settings, param="input_file_id")
        created_at, expiry = int(time.time()), body.get("output_expires_after")
        batch = StoredBatch(
            id=f"batch_{uuid.uuid4().hex}",
            created_at=created_at,
            endpoint=body["endpoint"],
            input_file_id=file_id,
            completion_window=body["completion_window"],
            expires_at=created_at + WINDOWS_S[body["completion_window"]],
            metadata=body.get("metadata"),
            key_id=request.caller.key_id,
            output_lifetime_s=int(expiry["seconds"]) if expiry else None,
        )
        await services.batches.add(batch)
    return JsonResponse(_batch_object(batch))


async def list_batches(services: Services, request: ApiRequest) -> Response:
    """`GET /batches`: newest first; relayed if files are stored at the upstream."""
    if services.settings.files == "upstream":
        return await relay(services, request)
    query: api.ListBatchesQuery = request.query
    with translate_store_errors("batch"):
        page = await services.batches.list(
            after=query.get("after"), limit=query.get("limit", DEFAULT_LIMIT)
        )
    return list_response(page, _batch_object)


@local_or_upstream("batch", "batch_id")
async def retrieve_batch(services: Services, request: ApiRequest) -> Response:
    """`GET /batches/{batch_id}`"""
    batch = _batch_object(await services.batches.get(request.path["batch_id"]))
    if batch["status"] not in UNFINISHED:
        return JsonResponse(batch)
    counts = batch["request_counts"]
    unfinished = counts["total"] - counts["completed"] - counts["failed"]
    return JsonResponse(
        batch, headers=poll_headers(batch["created_at"], time.time(), unfinished=unfinished)
    )


@local_or_upstream("batch", "batch_id")
async def cancel_batch(services: Services, request: ApiRequest) -> Response:
    """`POST /batches/{batch_id}/cancel`: running lines are finished, and their answers kept."""
    return JsonResponse(_batch_object(await services.batches.cancel(request.path["batch_id"])))


def _batch_object(batch: StoredBatch) -> "api.Batch":
    """Renders a batch; leaves out fields without a value yet."""
    fields = {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        **batch.times,
        "request_counts": {
            "total": batch.total,
            "completed": batch.completed,
            "failed": batch.failed,
        },
        "usage": None if batch.usage is None else _usage(batch.usage),
        "metadata": batch.metadata,
    }
    return cast("api.Batch", without_nulls(fields))


def _usage(tokens: TokenCounts) -> "api.BatchUsage":
    return {
        "input_tokens": tokens.input_tokens,
        "input_tokens_details": {"cached_tokens": tokens.cached_tokens},
        "output_tokens": tokens.output_tokens,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning_tokens},
        "total_tokens": tokens.input_tokens + tokens.output_tokens,
    }
