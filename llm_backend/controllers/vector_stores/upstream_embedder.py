"""Embedding model of an upstream, for vector stores."""

from collections.abc import Sequence

import orjson

from llm_backend.access.usage.estimate import ESTIMATED_BYTES_PER_TOKEN
from llm_backend.access.usage.usage_parser import parse_usage
from llm_backend.backends.base import Meter
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_errors import read_error
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.controllers.relay.relay import Exchanger
from llm_backend.controllers.services.embedders import TextEmbedder
from llm_backend.errors import OUTAGE_RETRY_AFTER_S, ApiError, ServiceUnavailable, UpstreamFailed
from llm_backend.json_types import JsonMapping

_REFUSALS = (400, 404, 413, 422)  # a later try would be refused as well
OPERATION = ("createEmbedding", "Embeddings")
INPUT_LIMIT_TOKENS = 8000  # OpenAI's models read at most 8,191
SAFE_BYTES_PER_TOKEN = 3  # a low estimate, so that a text within the limit fits
ANSWER_BYTES = 64 * 1024 * 1024
_HEADERS = ((b"content-type", b"application/json"), (b"accept-encoding", b"identity"))


def upstream_embedder(upstream: Exchanger, model: str) -> TextEmbedder:
    """Returns the upstream's embedding model of this name."""
    return TextEmbedder(_UpstreamSource(upstream, model), INPUT_LIMIT_TOKENS)


class _UpstreamSource:
    def __init__(self, upstream: Exchanger, model: str) -> None:
        self.name = model
        self._upstream = upstream

    async def count(self, texts: Sequence[str]) -> Sequence[int]:
        """Estimates the number of tokens of each text: the upstream's tokenizer is unknown."""
        return [-(-len(text.encode("utf-8", "replace")) // SAFE_BYTES_PER_TOKEN) for text in texts]

    async def vectors(self, texts: Sequence[str], meter: Meter | None) -> list[list[float]]:
        """Returns the upstream's vectors. Raises as `embed_at`."""
        rows, tokens = await embed_at(self._upstream, {"model": self.name, "input": list(texts)})
        if meter is not None:
            meter.count_embedding(self.name, tokens)
        return rows


async def embed_at(
    upstream: Exchanger, body: JsonMapping, *, name: str | None = None, fairness_key: str = ""
) -> tuple[list[list[float]], int]:
    """Returns the vectors of the texts in a body of `POST /embeddings`, and the number of tokens.
    `name` is that of the upstream; with None, the model determines the upstream. Raises the
    upstream's refusal, `UpstreamFailed`, and errors of the exchange."""
    model, texts = body["model"], body["input"]
    relayed = await upstream.exchange(
        UpstreamRequest(
            method="POST",
            path="/embeddings",
            query=b"",
            headers=_HEADERS,
            body=orjson.dumps({**body, "encoding_format": "float"}),
            operation=OPERATION,
            model=model,
            upstream=name,
            fairness_key=fairness_key,
            streams=False,
        )
    )
    if relayed.status != 200:
        raise await _refusal(relayed)
    answer = bytearray()
    try:
        async for piece in relayed.body:
            answer += piece
            if len(answer) > ANSWER_BYTES:
                raise UpstreamFailed("The upstream's embeddings are too large.")
    finally:
        await relayed.aclose()
    return _rows(bytes(answer), len(texts)), _tokens(bytes(answer), texts)


async def _refusal(relayed: UpstreamAnswer) -> ApiError:
    error = await read_error(relayed)
    if relayed.status in _REFUSALS:
        return error
    if relayed.status not in (429, 503):
        failed = UpstreamFailed(error.message)
        failed.retry_after_s = error.retry_after_s
        return failed
    wait_s = error.retry_after_s
    return ServiceUnavailable(
        "The upstream is overloaded and embeds nothing now.",
        retry_after_s=OUTAGE_RETRY_AFTER_S if wait_s is None else wait_s,
    )


def _tokens(answer: bytes, texts: Sequence[str]) -> int:
    """Returns the input tokens from the upstream's usage, or an estimate."""
    usage = parse_usage(answer)
    if usage is not None:
        return usage.input_tokens
    return sum(len(text.encode("utf-8", "replace")) for text in texts) // ESTIMATED_BYTES_PER_TOKEN


def _rows(answer: bytes, number: int) -> list[list[float]]:
    try:
        data = sorted(orjson.loads(answer)["data"], key=lambda one: one["index"])
        rows = [[float(value) for value in one["embedding"]] for one in data]
    except (ValueError, KeyError, TypeError) as error:
        raise UpstreamFailed("The upstream's embeddings cannot be read.") from error
    if len(rows) != number or not all(rows):
        raise UpstreamFailed("The upstream did not return one embedding for each text.")
    return rows
