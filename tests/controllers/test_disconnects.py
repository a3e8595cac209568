"""A client that leaves frees what it held within 200 ms, at every stage, relayed or local."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.gateway import backend, gateway
from tests.patience import comes_true, settle
from tests.upstream import Connection, FakeUpstream, Message, Relay, post

PATIENCE_S = 0.2
OF_AN_ENGINE_S = 1  # a process of its own, which a busy machine may let wait while this one runs
TICK_S = 0.01
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
STREAMED = CHAT[:-1] + b',"stream":true}'
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
EVENT = b"9\r\ndata: 1\n\n\r\n"
STAGES = {
    "waiting for headers": (CHAT, b""),
    "waiting for headers, streamed": (STREAMED, b""),
    "half the headers": (CHAT, b"HTTP/1.1 200 OK\r\ncontent-le"),
    "waiting for the first byte": (STREAMED, STREAM_HEAD),
    "in the middle of a stream": (STREAMED, STREAM_HEAD + EVENT),
    "in the middle of a whole body": (CHAT, b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"),
}


class Listener:
    """An upstream that says `first` and waits; tells when a connection came and when it went."""

    def __init__(self, first: bytes) -> None:
        self.came, self.went = asyncio.Event(), asyncio.Event()
        self._first = first
        self.fake = FakeUpstream(answer=self._answer)

    async def _answer(self, _: Message, connection: Connection) -> None:
        await connection.send(self._first)
        self.came.set()
        assert await connection.is_gone(within_s=10)
        self.went.set()


@contextlib.asynccontextmanager
async def asking(served: Relay, body: bytes) -> AsyncIterator[None]:
    """A client that has sent this chat and leaves at the end."""
    async with served.client() as client:
        await client.send(post(body))
        yield
        client.cut()


async def within_patience(event: asyncio.Event) -> bool:
    return await comes_true(event.is_set, within_s=PATIENCE_S)


@pytest.mark.parametrize("stage", STAGES)
async def test_a_relayed_answer_frees_its_upstream(tmp_path, stage: str):
    body, first = STAGES[stage]
    listener = Listener(first)
    async with (
        listener.fake as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        async with asking(served, body):
            await listener.came.wait()
            await settle()  # what it said is on its way through

        assert await within_patience(listener.went)


async def test_a_connection_that_is_being_made_is_given_up(tmp_path):
    came, went = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        while await reader.read(65536):  # its greeting, which is not answered
            pass
        went.set()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    tls = {"name": "a", "base_url": f"https://127.0.0.1:{port}/v1", "api_key": "k"}
    async with server, gateway(tmp_path, backends=[tls]) as served:
        async with asking(served, CHAT):
            await came.wait()

        assert await within_patience(went)


async def test_a_disconnect_ends_the_wait_for_a_permit(tmp_path):
    listener = Listener(b"")
    async with (
        listener.fake as fake,
        gateway(tmp_path, backends=[backend(fake, "a", concurrency=1)]) as served,
    ):
        async with asking(served, CHAT):
            await listener.came.wait()
            async with asking(served, CHAT):
                assert await becomes(served, 2, 5, what=in_flight)
            assert await becomes(served, 1, PATIENCE_S, what=in_flight)
        await within_patience(listener.went)
        await asyncio.sleep(PATIENCE_S)

        assert len(fake.requests) == 1  # the second one never came


LOCAL = b'{"model":"builtin","messages":[{"role":"user","content":"%b"}],"ignore_eos":true%b}'
LONG = b',"max_tokens":1500'
METRICS = b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n"
READY = b"GET /readyz HTTP/1.1\r\nhost: relay\r\n\r\n"
MANY_WORDS = b"word " * 900


@contextlib.asynccontextmanager
async def local(tmp_path) -> AsyncIterator[Relay]:
    settings = {"models": ("builtin",), "slots": 1, "context_tokens": 2048, "speculation": False}
    async with gateway(tmp_path, **settings, batch_tokens=8) as served:
        async with asyncio.timeout(30):
            while (await served.ask(READY)).status != 200:  # noqa: ASYNC110 - asked by HTTP
                await asyncio.sleep(0.05)
        yield served


async def engine(served: Relay) -> tuple[int, int]:
    """Running and waiting sequences of the engine."""
    metrics = (await served.ask(METRICS)).body.decode()
    found = re.findall(r"llm_backend_engine_(running|waiting)\{.*?\} (\S+)", metrics)
    numbers = {name: int(float(value)) for name, value in found}
    return numbers["running"], numbers["waiting"]


async def in_flight(served: Relay) -> int:
    """Requests in flight, without the one that asks."""
    metrics = (await served.ask(METRICS)).body.decode()
    (number,) = re.findall(r"^llm_backend_requests_in_flight (\S+)$", metrics, re.M)
    return int(float(number)) - 1


async def becomes(
    served: Relay, state: object, within_s: float, *, what: Callable[[Relay], Awaitable[object]]
) -> bool:
    for _ in range(round(within_s / TICK_S)):  # as `comes_true`: a busy machine makes it longer
        if await what(served) == state:
            return True
        await asyncio.sleep(TICK_S)
    return False


async def test_a_local_model_is_freed_at_every_stage(tmp_path):
    stages = {
        "prompt": LOCAL % (MANY_WORDS, LONG),
        "stream": LOCAL % (b"Hi", LONG + b',"stream":true'),
        "whole": LOCAL % (b"Hi", LONG),
    }
    async with local(tmp_path) as served:
        for stage, body in stages.items():
            async with asking(served, body):
                assert await becomes(served, (1, 0), 5, what=engine), stage
                async with asking(served, LOCAL % (b"Hi", LONG)):
                    assert await becomes(served, (1, 1), 5, what=engine), stage
                is_freed = await becomes(served, (1, 0), OF_AN_ENGINE_S, what=engine)
                assert is_freed, f"queued behind {stage}"

            assert await becomes(served, (0, 0), OF_AN_ENGINE_S, what=engine), stage
