"""Embeddings of text or tokens."""

import math
import struct
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from llm_backend.contract.request import Request
from llm_backend.controllers.generation import refuse_others, tokens_from
from llm_backend.controllers.json_response import JsonResponse
from llm_backend.controllers.relay import relay
from llm_backend.controllers.render import embeddings
from llm_backend.controllers.services import Services
from llm_backend.controllers.streaming import unless_gone
from llm_backend.errors import InvalidRequest

__all__ = ["create_embedding"]

FIELDS = {"input", "model", "encoding_format", "dimensions", "user"}


async def create_embedding(services: Services, request: Request) -> Response:
    """`POST /embeddings`"""
    body = request.body
    model = services.registry.for_model(body["model"])
    if model is None:
        return await relay(services, request)
    refuse_others(body, FIELDS)
    inputs = inputs_of(body, limit=services.settings.inputs_limit)
    answer = await unless_gone(request, model.embed(inputs))
    row_bytes = 4 * answer.embedding_size
    rows = [
        answer.vectors[start : start + row_bytes]
        for start in range(0, len(answer.vectors), row_bytes)
    ]
    if (size := body.get("dimensions")) is not None:
        if size > answer.embedding_size:
            raise InvalidRequest(
                f"`dimensions` is {size}; this model's vectors have {answer.embedding_size}.",
                param="dimensions",
            )
        rows = [shortened(row, int(size)) for row in rows]
    encoding = body.get("encoding_format") or "float"
    return JsonResponse(embeddings(rows, body["model"], answer.prompt_tokens, encoding))


def inputs_of(body: Mapping[str, Any], *, limit: int) -> list[str | list[int]]:
    """One input per text or token list, whichever of the document's four forms was used."""
    given = body["input"]
    if isinstance(given, str) or (given and isinstance(given[0], int | float)):
        given = [given]
    if not given or len(given) > limit:
        raise InvalidRequest(
            f"`input` holds {len(given)} texts; it must hold 1 to {limit}.", param="input"
        )
    for place, one in enumerate(given):
        if not one:
            name = f"input[{place}]" if len(given) > 1 else "input"
            raise InvalidRequest("An input must not be empty.", param=name)
    return [
        one if isinstance(one, str) else tokens_from(one, f"input[{place}]")
        for place, one in enumerate(given)
    ]


def shortened(row: bytes, size: int) -> bytes:
    """The first `size` numbers of a vector of little-endian float32, of length 1 again."""
    numbers = struct.unpack_from(f"<{size}f", row)
    norm = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return struct.pack(f"<{size}f", *(number / norm for number in numbers))
