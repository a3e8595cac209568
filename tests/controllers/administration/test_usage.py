"""Usage and costs of an upstream's answers, by the official client."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_backend.controllers.administration.usage_query import buckets_of
from tests.controllers.administration.conftest import Client, relaying_client
from tests.gateway import backend, gateway
from tests.patience import settle
from tests.strict_sdk import StrictAsyncOpenAI
from tests.upstream import Connection, FakeUpstream, Message, Relay, post

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICES = {"gpt-x": {"input": 2, "cached_input": 1, "output": 10}}


def ago(seconds: int) -> int:
    return int(time.time()) - seconds


async def chat(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "hi"}]
    )


async def test_relayed_usage_is_counted_by_project_key_and_model(tmp_path: Path):
    async with relaying_client(tmp_path, prices=PRICES) as client:
        organization = client().admin.organization
        account = await organization.projects.service_accounts.create("proj_default", name="app")
        for _ in range(2):
            await chat(client(account.api_key.value))
        await client().embeddings.create(model="embed-x", input="hi", encoding_format="float")
        completions = await organization.usage.completions(
            start_time=ago(3600),
            bucket_width="1h",
            group_by=["project_id", "api_key_id", "model", "batch", "service_tier"],
        )
        embeddings = await organization.usage.embeddings(start_time=ago(120), models=["embed-x"])

    (result,) = completions.data[-1].results or completions.data[-2].results
    assert (result.input_tokens, result.input_cached_tokens, result.output_tokens) == (
        2000, 800, 400,
    )  # fmt: skip
    assert (result.num_model_requests, result.model) == (2, "gpt-x")
    assert (result.project_id, result.api_key_id) == ("proj_default", account.api_key.id)
    assert (result.batch, result.service_tier) == (False, "default")
    (embedded,) = [one for bucket in embeddings.data for one in bucket.results]
    assert (embedded.input_tokens, embedded.num_model_requests, embedded.model) == (7, 1, None)


async def test_usage_of_the_minute_in_which_a_query_begins_is_counted(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        began_at = int(time.time())
        await chat(client())
        usage = await client().admin.organization.usage.completions(start_time=began_at)

    assert [one.num_model_requests for bucket in usage.data for one in bucket.results] == [1]


async def test_consecutive_queries_omit_no_minute():
    first = buckets_of({"start_time": 90, "end_time": 200, "bucket_width": "1m"}, now=1000)
    second = buckets_of({"start_time": 200, "bucket_width": "1m"}, now=1000)

    short = buckets_of({"start_time": 100, "end_time": 110, "bucket_width": "1m"}, now=1000)

    assert (first.start_at, first.end_at, second.start_at) == (60, 180, 180)
    assert (short.start_at, short.end_at) == (60, 120)


async def test_tokens_of_images_and_audio_are_counted_separately(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        await chat(client())
        usage = client().admin.organization.usage
        told = await usage.completions(start_time=ago(120))

    (result,) = [one.to_dict() for bucket in told.data for one in bucket.results]
    counts = {name: count for name, count in result.items() if name.endswith("_tokens") and count}
    assert counts == {
        "input_tokens": 1000, "input_cached_tokens": 400, "input_uncached_tokens": 600,
        "input_cached_text_tokens": 300, "input_cached_image_tokens": 100,
        "input_image_tokens": 400, "input_audio_tokens": 200,
        "output_tokens": 200, "output_text_tokens": 150, "output_audio_tokens": 50,
    }  # fmt: skip


async def test_costs_are_reckoned_with_the_prices_of_the_settings(tmp_path: Path):
    async with relaying_client(tmp_path, prices=PRICES) as client:
        await chat(client())
        costs = client().admin.organization.usage
        plain = await costs.costs(start_time=ago(120))
        lines = await costs.costs(start_time=ago(120), group_by=["line_item", "project_id"])

    (total,) = [one for bucket in plain.data for one in bucket.results]
    assert total.amount.value == pytest.approx((600 * 2 + 400 * 1 + 200 * 10) / 1e6)
    told = {one.line_item: one.quantity for bucket in lines.data for one in bucket.results}
    assert told == {"gpt-x, input": 600, "gpt-x, cached input": 400, "gpt-x, output": 200}


async def test_an_answer_that_is_an_error_is_not_counted(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        with pytest.raises(openai.BadRequestError):
            await client().chat.completions.create(model="gpt-x", messages=[])
        told = await client().admin.organization.usage.completions(start_time=ago(120))

    assert [one for bucket in told.data for one in bucket.results] == []


async def test_usage_filters_select_groups(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        await chat(client())
        usage = client().admin.organization.usage
        for given in ({"project_ids": ["proj_x"]}, {"models": ["x"]}, {"batch": True}):
            told = await usage.completions(start_time=ago(120), **given)
            assert [one for bucket in told.data for one in bucket.results] == [], given
        told = await usage.completions(start_time=ago(120), batch=False, models=["gpt-x"])

    assert [one.num_model_requests for bucket in told.data for one in bucket.results] == [1]


async def test_pages_of_buckets_join_without_a_gap(client: Client):
    usage = client().admin.organization.usage
    given = {"start_time": 86_400, "end_time": 4 * 86_400 + 60, "limit": 2}
    first = await usage.completions(**given)
    second = await usage.completions(**given, page=first.next_page)

    assert first.has_more
    assert [(one.start_time, one.end_time) for one in [*first.data, *second.data]] == [
        (86_400, 172_800), (172_800, 259_200), (259_200, 345_600), (345_600, 345_660),
    ]  # fmt: skip
    assert (second.has_more, second.next_page) == (False, None)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start_time": 1, "limit": 32}, "limit"),
        ({"start_time": 1, "limit": 0}, "limit"),
        ({"start_time": -1}, "start_time"),
        ({"start_time": 5, "end_time": 5}, "end_time"),
        ({"start_time": 1, "page": "next"}, "page"),
    ],
)
async def test_a_page_that_cannot_be_is_refused_by_its_field(client: Client, query, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client().admin.organization.usage.completions(**query)

    assert refused.value.param == param


async def test_every_usage_page_is_there(client: Client):
    usage = client().admin.organization.usage
    for ask in (
        usage.audio_speeches, usage.audio_transcriptions, usage.code_interpreter_sessions,
        usage.images, usage.moderations, usage.vector_stores, usage.file_search_calls,
        usage.web_search_calls,
    ):  # fmt: skip
        told = await ask(start_time=ago(120))
        assert told.object == "page"


async def test_a_route_costs_the_price_of_the_answering_model(tmp_path: Path):
    routes = {"pair": "gpt-x, gpt-y"}
    async with relaying_client(tmp_path, prices=PRICES, routes=routes) as client:
        await client().chat.completions.create(
            model="pair", messages=[{"role": "user", "content": "hi"}]
        )
        usage = client().admin.organization.usage
        told = await usage.completions(start_time=ago(120), group_by=["model"])
        costs = await usage.costs(start_time=ago(120))

    assert [one.model for bucket in told.data for one in bucket.results] == ["gpt-x"]
    (total,) = [one for bucket in costs.data for one in bucket.results]
    assert total.amount.value > 0


EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-x",'
    b'"choices":[{"index":0,"delta":{"content":"four four four "},"finish_reason":null}]}\n\n'
)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


async def endless(_request: Message, connection: Connection) -> None:
    await connection.send(STREAM)
    while True:
        await connection.send(EVENT)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("leaves", [False, True])
async def test_usage_of_a_stream_without_usage_is_estimated(tmp_path: Path, leaves: bool):
    answer = endless if leaves else STREAM + 3 * EVENT + b"data: [DONE]\n\n"
    async with FakeUpstream(answer=answer) as upstream:
        settings = {"backends": [backend(upstream, "far")], "prices": PRICES}
        async with gateway(tmp_path, allowed_hosts=("127.0.0.1",), **settings) as served:
            client = StrictAsyncOpenAI(
                base_url=f"http://127.0.0.1:{served.port}/v1", api_key="k", admin_api_key="k"
            )
            async with client:
                stream = await client.chat.completions.create(
                    model="gpt-x", messages=[{"role": "user", "content": "hi"}], stream=True
                )
                async with stream:
                    for _ in "123":
                        await anext(stream)
                results = []
                async with asyncio.timeout(20):  # its leaving takes a moment
                    while not results:
                        usage = client.admin.organization.usage
                        told = await usage.completions(start_time=ago(120))
                        results = [one for bucket in told.data for one in bucket.results]

    (result,) = results
    assert result.num_model_requests == 1
    assert result.input_tokens > 10
    assert result.output_tokens >= 3 * len("four four four ") // 4


async def silent(_request: Message, _connection: Connection) -> None:
    await asyncio.Event().wait()


CHAT = b'{"model":"gpt-x","messages":[{"role":"user","content":"hi"}]}'


async def test_requests_are_counted_at_a_disconnect_only_if_sent_to_the_upstream(
    tmp_path: Path,
):
    async with (
        FakeUpstream(answer=silent) as upstream,
        gateway(tmp_path, backends=[backend(upstream, "far", concurrency=1)]) as served,
    ):
        async with served.client() as first, served.client() as second:
            await first.send(post(CHAT))
            await until(lambda: len(upstream.requests) == 1)
            await second.send(post(CHAT))  # which waits for a place
            await until_in_flight(served, 2)
            second.cut()
            await until_in_flight(served, 1)
            first.cut()
            await until_in_flight(served, 0)
        told = await served.ask(USAGE % ago(120))

    (result,) = [one for bucket in json.loads(told.body)["data"] for one in bucket["results"]]
    assert result["num_model_requests"] == 1
    assert (result["input_tokens"], result["output_tokens"]) == (-(-len(CHAT) // 4), 0)


USAGE = b"GET /v1/organization/usage/completions?start_time=%d HTTP/1.1\r\nhost: relay\r\n\r\n"


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not claim():  # noqa: ASYNC110 - what a fake has seen is told by no event
            await asyncio.sleep(0.005)


async def until_in_flight(served: Relay, number: int) -> None:
    """Requests being answered, besides those that ask for it."""
    async with asyncio.timeout(60):
        while await _in_flight(served) - 1 != number:  # noqa: ASYNC110 - asked by HTTP
            await asyncio.sleep(0.01)


async def _in_flight(served: Relay) -> int:
    metrics = await served.ask(b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n")
    found = re.search(rb"\nllm_backend_requests_in_flight (\S+)", metrics.body)
    assert found is not None
    return int(float(found[1]))


FORM = (
    b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\ngpt-x\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    b"RIFF\r\n--x--\r\n"
)
SPEECH = (
    b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: relay\r\n"
    b"content-type: multipart/form-data; boundary=x\r\ncontent-length: %d\r\n\r\n" % len(FORM)
)


@pytest.mark.parametrize(("sent_bytes", "requests"), [(len(FORM), [1]), (len(FORM) - 9, [])])
async def test_an_upload_counts_once_an_upstream_has_all_of_it(
    tmp_path: Path, sent_bytes: int, requests: list[int]
):
    async with (
        FakeUpstream(answer=silent, reads_bodies=False) as upstream,
        gateway(tmp_path, backends=[backend(upstream, "far")]) as served,
    ):
        async with served.client() as client:
            await client.send(SPEECH + FORM[:sent_bytes])
            await until(lambda: len(upstream.requests) == 1)
            await settle(0.1)  # what it has sent is on its way through
            client.cut()
            await until_in_flight(served, 0)
        told = await served.ask(USAGE.replace(b"completions", b"audio_transcriptions") % ago(60))

    results = [one for bucket in json.loads(told.body)["data"] for one in bucket["results"]]
    assert [one["num_model_requests"] for one in results] == requests


async def test_every_image_of_a_relayed_form_is_counted(tmp_path: Path):
    async with relaying_client(tmp_path, prices={"dall-e-2": {"image": 0.5}}) as client:
        size: Any = "512x512"
        await client().images.edit(model="dall-e-2", image=b"png", prompt="x", n=3, size=size)
        organization = client().admin.organization
        usage = await organization.usage.images(start_time=ago(120), group_by=["size"])
        costs = await organization.usage.costs(start_time=ago(24 * 3600))

    (counted,) = [one for bucket in usage.data for one in bucket.results]
    (cost,) = [one for bucket in costs.data for one in bucket.results]
    assert (counted.images, counted.num_model_requests, counted.size) == (3, 1, "512x512")
    assert cost.amount.value == 1.5
