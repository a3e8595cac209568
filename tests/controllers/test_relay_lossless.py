"""What goes through the relay comes out as it went in: random exchanges, compared byte for byte."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.upstream import Connection, FakeUpstream, Message, Pairs, relayed_to

TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$%&'*+^`|~"
TARGET = [*"abcXYZ019-_.~!$&'()*+,;=:@", "%2F", "%41", "%e2%82%ac", "%7e"]
ADDED_BY_FRAMING = {b"host", b"content-length", b"transfer-encoding", b"connection"}

names = st.text(TOKEN, min_size=1, max_size=20).map(lambda name: b"x-" + name.encode())
values = st.one_of(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=60),
    st.text(st.characters(min_codepoint=0xA1, max_codepoint=0x24F), max_size=10),
).map(lambda text: text.strip().encode())
header_lists = st.lists(st.tuples(names, values), max_size=8).flatmap(
    lambda pairs: st.permutations(pairs + pairs[:2])  # repeats
)
bodies = st.one_of(
    st.binary(max_size=2000),
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
    is_json: bool
    is_chunked: bool
    status: int
    answer_headers: Pairs
    answer_body: bytes
    answer_framing: str


exchanges = st.builds(
    Exchange,
    method=st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]),
    target=st.builds(
        lambda path, query: "/" + "/".join(path) + ("" if query is None else "?" + query),
        paths,
        queries,
    ),
    sent_headers=header_lists,
    sent_body=bodies,
    is_json=st.booleans(),
    is_chunked=st.booleans(),
    status=st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    answer_headers=header_lists,
    answer_body=bodies,
    answer_framing=st.sampled_from(["length", "chunked", "close"]),
)


def request_of(exchange: Exchange) -> bytes:
    kind = b"application/json" if exchange.is_json else b"application/x-anything"
    head = [
        f"{exchange.method} /v1{exchange.target} HTTP/1.1".encode(),
        b"Host: relay",
        b"Content-Type: " + kind,
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
        b"Set-Cookie: a=1",
        b"Set-Cookie: b=2",
        b"Keep-Alive: timeout=5",
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


def test_random_exchanges_pass_unchanged():
    with asyncio.Runner() as runner:
        stack, fake = AsyncExitStack(), FakeUpstream()

        @settings(
            max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
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
            kind = b"application/json" if exchange.is_json else b"application/x-anything"
            assert meant(sent.headers) == [
                (b"content-type", kind),
                (b"openai-organization", b"org-1"),
                *meant(exchange.sent_headers),
                (b"authorization", b"Bearer server-key"),
            ]
            assert got.status == exchange.status
            assert (got.body, got.is_whole) == (exchange.answer_body, True)
            assert meant(got.headers) == [
                (b"x-request-id", b"req_upstream"),
                (b"set-cookie", b"a=1"),
                (b"set-cookie", b"b=2"),
                *meant(exchange.answer_headers),
            ]
            if exchange.answer_framing == "length":
                assert got.values(b"content-length") == [b"%d" % len(exchange.answer_body)]

        relay = runner.run(stack.enter_async_context(relayed_to(fake)))
        try:
            passes()
        finally:
            runner.run(stack.aclose())
