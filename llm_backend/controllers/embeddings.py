"""Embeddings of texts or token lists."""

import asyncio
import base64
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

import orjson
from starlette.responses import Response

from llm_backend.access import Tokens
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.foreign_tokens import decode_foreign_tokens
from llm_backend.controllers.generation.request_translation import (
    check_supported_fields,
    tokens_from,
)
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.chunks import embeddings
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.engine.messages import Embedded
from llm_backend.errors import InvalidRequest
from llm_backend.offload import offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

FIELDS = {"input", "model", "encoding_format", "dimensions", "user"}


async def create_embedding(services: Services, request: ApiRequest) -> Response:
    """`POST /embeddings`"""
    return await answer_by_route(services, request, local=_answer)


async def _answer(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateEmbeddingRequest = request.body
    rows, tokens = await embed_locally(services, request, model)
    return JsonResponse(embeddings(rows, body["model"], tokens))


async def embed_locally(
    services: Services, request: ApiRequest, model: LocalModel
) -> tuple[Sequence[str | orjson.Fragment], int]:
    """Returns the rendered vectors of a body of `POST /embeddings`, and their number of tokens.
    Adds the tokens to the request's usage."""
    body: api.CreateEmbeddingRequest = request.body
    check_supported_fields(body, FIELDS)
    parsed_inputs = await offload(inputs_of, body, limit=services.settings.inputs_limit)
    inputs = await decode_foreign_tokens(
        services.token_files, body["model"], parsed_inputs, "input"
    )
    answer = await cancel_on_disconnect(request, model.embed(inputs))
    request.meter.count_tokens(Tokens(input_tokens=answer.prompt_tokens))
    size = _dimensions(body, answer.embedding_size)
    rows = await _rows(answer, size, body.get("encoding_format") or "float")
    return rows, answer.prompt_tokens


def inputs_of(body: "api.CreateEmbeddingRequest", *, limit: int) -> list[str | list[int]]:
    """Parses OpenAI's four forms of `input` into a list of texts or token lists."""
    values = body["input"]
    is_single = isinstance(values, str) or (values and isinstance(values[0], int | float))
    inputs = cast("list[str | list[int]]", [values] if is_single else values)
    if not inputs or len(inputs) > limit:
        raise InvalidRequest(
            f"`input` holds {len(inputs)} texts; it must hold 1 to {limit}.", param="input"
        )
    for index, one in enumerate(inputs):
        if not one:
            name = f"input[{index}]" if len(inputs) > 1 else "input"
            raise InvalidRequest("An input must not be empty.", param=name)
    return [
        one
        if isinstance(one, str)
        else tokens_from(one, "input" if is_single else f"input[{index}]")
        for index, one in enumerate(inputs)
    ]


def _dimensions(body: "api.CreateEmbeddingRequest", size: int) -> int:
    """Returns the requested number of dimensions."""
    requested = size if body.get("dimensions") is None else int(body["dimensions"])
    if requested > size:
        raise InvalidRequest(
            f"`dimensions` is {requested}; this model's vectors have {size}.", param="dimensions"
        )
    return requested


async def _rows(answer: Embedded, size: int, encoding: str) -> Sequence[str | orjson.Fragment]:
    """Renders the vectors, shortened to `size` dimensions, for the JSON answer."""
    if encoding == "base64" and size == answer.embedding_size:
        return _as_base64(answer.vectors, size)
    await asyncio.to_thread(import_module, "numpy")  # slow at the first request
    from llm_backend.controllers.rendering import vectors

    numbers = answer.vectors
    if size < answer.embedding_size:
        numbers = vectors.shorten(numbers, answer.embedding_size, size)
    if encoding == "base64":
        return _as_base64(numbers, size)
    return await vectors.as_numbers(numbers, size)


def _as_base64(vectors: bytes, size: int) -> list[str]:
    starts = range(0, len(vectors), 4 * size)
    return [base64.b64encode(vectors[start : start + 4 * size]).decode() for start in starts]
