"""Vectors from an upstream's model."""

from typing import Any

import orjson
import pytest

from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.controllers.vector_stores.upstream_embedder import upstream_embedder
from llm_backend.errors import (
    InvalidRequest,
    NotFound,
    ServiceUnavailable,
    TooLarge,
    UpstreamFailed,
)


class Exchange:
    """An upstream that answers each text with how long it is."""

    def __init__(self, status: int = 200, answer: Any = None, headers: Any = ()) -> None:
        self._headers = headers
        self._status = status
        self._answer = answer
        self.asked: list[dict[str, Any]] = []
        self.closed = 0

    async def exchange(self, asked: UpstreamRequest) -> UpstreamAnswer:
        body = orjson.loads(asked.body)
        self.asked.append(body)
        data = [
            {"index": place, "embedding": [float(len(text)), 0.0]}
            for place, text in enumerate(body["input"])
        ]
        answer = self._answer or {"data": data[::-1]}

        async def pieces():
            yield orjson.dumps(answer)[:5]
            yield orjson.dumps(answer)[5:]

        return UpstreamAnswer(
            status=self._status, headers=self._headers, body=pieces(), close=self._close
        )

    def _close(self) -> None:
        self.closed += 1


async def test_vectors_come_in_the_order_of_the_texts() -> None:
    upstream = Exchange()

    vectors = await upstream_embedder(upstream, "m").embed(["a", "bbb"], None)

    assert vectors == [[1.0, 0.0], [3.0, 0.0]]
    assert upstream.asked[0]["model"] == "m"
    assert upstream.closed == 1


async def test_a_text_that_may_be_too_long_is_sent_in_parts() -> None:
    upstream = Exchange()

    (vector,) = await upstream_embedder(upstream, "m").embed(["many words " * 4000], None)

    assert vector == [1.0, 0.0]
    assert all(len(text) <= 24_000 for body in upstream.asked for text in body["input"])


async def test_a_long_text_of_blanks_has_a_vector() -> None:
    (vector,) = await upstream_embedder(Exchange(), "m").embed([" \n" * 40_000], None)

    assert vector == [1.0, 0.0]


@pytest.mark.parametrize(
    ("upstream", "error"),
    [
        (Exchange(status=500), UpstreamFailed),
        (Exchange(status=204), UpstreamFailed),
        (Exchange(status=429), ServiceUnavailable),
        (Exchange(status=503), ServiceUnavailable),
        (Exchange(answer={"data": []}), UpstreamFailed),
        (Exchange(answer=["what"]), UpstreamFailed),
    ],
)
async def test_invalid_embeddings_are_an_upstream_failure(upstream, error) -> None:
    with pytest.raises(error):
        await upstream_embedder(upstream, "m").embed(["a"], None)


@pytest.mark.parametrize(
    ("status", "error"), [(400, InvalidRequest), (404, NotFound), (413, TooLarge)]
)
async def test_a_refusal_of_the_texts_is_the_error_of_the_request(status, error) -> None:
    refusing = Exchange(status=status, answer={"error": {"message": "Too long.", "code": "long"}})

    with pytest.raises(error) as refused:
        await upstream_embedder(refusing, "m").embed(["a"], None)

    assert (type(refused.value), refused.value.message, refused.value.code) == (
        error, "Too long.", "long",
    )  # fmt: skip
    assert refusing.closed == 1


@pytest.mark.parametrize("status", [402, 408, 409, 425])
async def test_a_refusal_that_a_later_try_may_not_get_is_a_failure(status) -> None:
    refusing = Exchange(status=status, answer={"error": {"message": "Later.", "code": "later"}})

    with pytest.raises(UpstreamFailed, match="Later"):
        await upstream_embedder(refusing, "m").embed(["a"], None)


@pytest.mark.parametrize(("headers", "wait_s"), [((), 5), (((b"retry-after", b"40"),), 40)])
async def test_the_error_of_an_overloaded_upstream_has_its_pause(headers, wait_s) -> None:
    upstream = Exchange(status=429, headers=headers)

    with pytest.raises(ServiceUnavailable) as refused:
        await upstream_embedder(upstream, "m").embed(["a"], None)

    assert refused.value.retry_after_s == wait_s
