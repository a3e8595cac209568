"""The relay changes no byte: random exchanges, compared on both sides."""

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message, Pairs, Relay, post, relayed_to

TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$%&'*+^`|~"
TARGET = [*"abcXYZ019-_.~!$&'()*+,;=:@", "%2F", "%41", "%e2%82%ac", "%7e"]
ADDED_BY_US = {b"date", b"x-request-id", b"x-llm-backend-unknown-fields"}
ADDED_IF_MISSING = {b"openai-processing-ms", b"openai-version"}
ADDED_BY_FRAMING = {b"host", b"content-length", b"transfer-encoding", b"connection"}

SENT_ON = ["openai-beta", "x-client-request-id", "traceparent", "idempotency-key", "accept",
           "user-agent", "range"]  # fmt: skip
GIVEN_BACK = ["openai-beta", "openai-processing-ms", "openai-version", "x-ratelimit-limit-tokens",
              "x-ratelimit-remaining-requests", "retry-after", "etag",
              "content-language"]  # fmt: skip
NEITHER = ["x-api-key", "api-key", "x-goog-api-key", "anthropic-api-key", "server", "via",
           "access-control-allow-origin", "strict-transport-security", "openai-organization",
           "location", "x-llm-backend-unknown-fields"]  # fmt: skip

names = st.sampled_from([*SENT_ON, *GIVEN_BACK, *NEITHER]).map(str.encode) | st.text(
    TOKEN, min_size=1, max_size=20
).map(lambda name: b"x-" + name.encode())
values = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60),
    st.text(st.characters(min_codepoint=0xA1, max_codepoint=0x24F), max_size=10),
).map(lambda text: text.strip().encode())
header_lists = st.lists(st.tuples(names, values), max_size=8).flatmap(
    lambda pairs: st.permutations(pairs + pairs[:2])  # repeats
)
bodies = st.one_of(
    st.binary(max_size=2000),
    st.lists(
        st.sampled_from(
            [
                b"data: {}\n\n",
                b"data: [DONE]\r\n\r\n",
                b": ping\n\n",
                b"event: error\n",
                b'data: {"error": {"message": "no"}}\n\n',
                b"data: \xff",
                b"\r",
                b"\n",
            ]
        )
    ).map(b"".join),  # an event stream, or what is none
    st.just(b'{"model":"x", "unknown_field" : [1,2.50,null, "\xc3\xa9"],\n "a":1, "a":2}'),
    st.integers(70_000, 1_500_000).map(lambda size: bytes(range(256)) * (size // 256)),
)
segments = st.lists(st.sampled_from(TARGET), min_size=1, max_size=12).map("".join)
paths = st.lists(segments, min_size=1, max_size=4).filter(
    lambda words: not {".", ".."} & set("/".join(words).replace("%2F", "/").split("/"))
)
queries = st.none() | st.lists(st.sampled_from([*TARGET, "/", "?", "%zz"]), min_size=1).map("".join)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One request and its answer, as drawn."""

    method: str
    target: str
    sent_headers: Pairs
    sent_body: bytes
    kind: bytes
    is_chunked: bool
    status: int
    answer_headers: Pairs
    answer_body: bytes
    answer_framing: str
    is_stream: bool


exchanges = st.builds(
    Exchange,
    method=st.sampled_from(["POST", "POST", "GET", "PUT", "PATCH", "DELETE"]),
    target=st.builds(
        lambda path, query: "/" + "/".join(path) + ("" if query is None else "?" + query),
        paths,
        queries,
    ),
    sent_headers=header_lists,
    sent_body=bodies,
    kind=st.sampled_from(
        [
            b"application/json",
            b"application/x-anything",
            b"audio/wav",
            b"multipart/form-data; boundary=b",
            b"image/png",
        ]
    ),
    is_chunked=st.booleans(),
    status=(st.integers(200, 299) | st.integers(400, 599)).filter(
        lambda status: status not in (204, 401, 403)
    ),
    answer_headers=header_lists,
    answer_body=bodies,
    answer_framing=st.sampled_from(["length", "chunked", "close"]),
    is_stream=st.booleans(),
)


def request_of(exchange: Exchange) -> bytes:
    head = [
        f"{exchange.method} /v1{exchange.target} HTTP/1.1".encode(),
        b"Host: relay",
        b"Content-Type: " + exchange.kind,
        b"Authorization: Bearer client-key",
        b"Cookie: session=1",
        b"OpenAI-Organization: org-1",
        b"Connection: keep-alive, X-Only-For-You",
        b"X-Only-For-You: 1",
        b"TE: trailers",
        *(name + b": " + value for name, value in exchange.sent_headers),
    ]
    return b"\r\n".join(head) + b"\r\n" + framed(exchange.sent_body, is_chunked=exchange.is_chunked)


def answer_of(exchange: Exchange) -> bytes:
    head = [
        f"HTTP/1.1 {exchange.status} Whatever".encode(),
        b"x-request-id: req_upstream",
        b"Set-Cookie: a=1",  # between the upstream and the server
        b"Set-Cookie: b=2",
        b"Keep-Alive: timeout=5",
        b"Content-Type: " + (b"text/event-stream" if exchange.is_stream else b"x/y"),
        *(name + b": " + value for name, value in exchange.answer_headers),
    ]
    start = b"\r\n".join(head) + b"\r\n"
    if exchange.answer_framing == "close":
        return start + b"\r\n" + exchange.answer_body
    is_chunked = exchange.answer_framing == "chunked"
    return start + framed(exchange.answer_body, is_chunked=is_chunked)


def framed(body: bytes, *, is_chunked: bool) -> bytes:
    if not is_chunked:
        return b"content-length: %d\r\n\r\n" % len(body) + body
    cuts = [body[start : start + 700] for start in range(0, len(body), 700)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(cut), cut) for cut in cuts)
    return b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def meant(pairs: Pairs) -> Pairs:
    lowered = [(name.lower(), value) for name, value in pairs]
    return [pair for pair in lowered if pair[0] not in ADDED_BY_FRAMING]


def listed(pairs: Pairs, names: list[str]) -> Pairs:
    return [pair for pair in meant(pairs) if pair[0].decode() in names]


def meant_answer(exchange: Exchange) -> Pairs:
    """The answer's headers as its reader gets them."""
    return [
        (b"content-type", b"text/event-stream" if exchange.is_stream else b"x/y"),
        *listed(exchange.answer_headers, GIVEN_BACK),
        (b"x-upstream-request-id", b"req_upstream"),
    ]


@pytest.mark.hypothesis
def test_random_exchanges_pass_unchanged():
    with asyncio.Runner() as runner:
        stack, fake = AsyncExitStack(), FakeUpstream()

        @settings(max_examples=examples(250), suppress_health_check=list(HealthCheck))
        @given(exchanges)
        def passes(exchange: Exchange) -> None:
            runner.run(one(exchange))

        async def one(exchange: Exchange) -> None:
            async def answer(_: Message, connection: Connection) -> None:
                await connection.send(answer_of(exchange))

            fake.answer = answer
            fake.requests.clear()
            got = await relay.ask(request_of(exchange))

            sent = fake.requests[0]
            assert sent.first_line == f"{exchange.method} /v1{exchange.target} HTTP/1.1".encode()
            assert sent.body == exchange.sent_body
            assert meant(sent.headers) == [
                (b"content-type", exchange.kind),
                *listed(exchange.sent_headers, SENT_ON),
                (b"authorization", b"Bearer server-key"),
            ]
            assert got.status == exchange.status
            assert (got.body, got.is_whole) == (exchange.answer_body, True)
            assert meant(got.headers) == meant_answer(exchange)
            if exchange.answer_framing == "length":
                assert got.values(b"content-length") == [b"%d" % len(exchange.answer_body)]

        relay = runner.run(stack.enter_async_context(relayed_to(fake)))
        try:
            passes()
        finally:
            runner.run(stack.aclose())


CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | strings,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc ü", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
chats = st.builds(
    lambda more, indent, ascii_only, stream: json.dumps(
        {**{"x_" + name: value for name, value in more.items()}, **CHAT, "stream": stream},
        indent=indent, ensure_ascii=ascii_only,
    ).encode(),
    st.dictionaries(st.text("abcdef", max_size=5), json_values, max_size=4),
    st.none() | st.integers(0, 3), st.booleans(), st.booleans(),
)  # fmt: skip


def good_if_it_says_so(exchange: Exchange, chat: bytes) -> Exchange:
    """An exchange whose good answer is one: JSON, or events where the chat asks for them."""
    if not 200 <= exchange.status < 300:
        return exchange
    if exchange.is_stream and json.loads(chat)["stream"]:
        return replace(exchange, answer_body=exchange.answer_body or b": ping\n\n")
    text = exchange.answer_body.decode("latin-1")
    return replace(exchange, is_stream=False, answer_body=json.dumps({"choices": text}).encode())


@pytest.mark.hypothesis
def test_chats_pass_the_whole_server_unchanged_although_they_are_read_and_stored(tmp_path):
    with asyncio.Runner() as runner:
        stack, fake = AsyncExitStack(), FakeUpstream()

        @settings(max_examples=examples(80), suppress_health_check=list(HealthCheck))
        @given(chats, exchanges)
        def passes(chat: bytes, exchange: Exchange) -> None:
            runner.run(one(chat, exchange))

        async def one(chat: bytes, exchange: Exchange) -> None:
            async def answer(_: Message, connection: Connection) -> None:
                await connection.send(answer_of(exchange))

            exchange = good_if_it_says_so(exchange, chat)
            fake.answer = answer
            fake.requests.clear()
            got = await relay.ask(post(chat))
            renamed = await relay.ask(post(chat.replace(b'"m"', b'"other"')))

            bodies = [request.body for request in fake.requests]
            assert bodies == [chat, chat]
            for one_got in (got, renamed):
                assert one_got.status == exchange.status
                assert (one_got.body, one_got.is_whole) == (exchange.answer_body, True)
                expected = meant_answer(exchange)
                added = ADDED_BY_US | (ADDED_IF_MISSING - {name for name, _ in expected})
                told = [pair for pair in meant(one_got.headers) if pair[0] not in added]
                assert told == expected

        async def opened() -> Relay:
            await stack.enter_async_context(fake)
            return await stack.enter_async_context(
                gateway(
                    tmp_path, backends=[backend(fake, "a")], routes={"other": "m"},
                    store_chats="always", log_level="error",
                )
            )  # fmt: skip

        relay = runner.run(opened())
        try:
            passes()
        finally:
            runner.run(stack.aclose())
