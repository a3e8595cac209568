"""Objects of an answer are freed with it: none is in a reference cycle, which only the garbage
collector would free.
"""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from llm_backend.contract.client_disconnect import WATCH_DELAY_S
from llm_backend.controllers.write_behind.group_commit import GroupCommit
from llm_backend.errors import UpstreamFailed
from llm_backend.ipc.pending_requests import PendingRequests
from llm_backend.store.database.write_queue import WriteQueue
from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message, post, upstream_of

CHAT = b'{"messages": [{"role": "user", "content": "Hi"}], "model": "m"}'
STREAMED = CHAT[:-1] + b', "stream": true}'
SAID = b'"choices": [{"index": 0, "%b": {"content": "Ho"}, "finish_reason": "stop"}]'
WHOLE = b'{"id": "c", "created": 1, "model": "m", ' + SAID % b"message" + b"}"
EVENT = b'data: {"id": "c", "created": 1, "model": "m", ' + SAID % b"delta" + b"}\n\n"


async def at_once(request: Message, connection: Connection) -> None:
    if b"stream" not in request.body:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        await connection.send(b"content-length: %d\r\n\r\n%b" % (len(WHOLE), WHOLE))
        return
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    await connection.send(b"transfer-encoding: chunked\r\n\r\n")
    for piece in (EVENT, b"data: [DONE]\n\n"):
        await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    await connection.send(b"0\r\n\r\n")


async def after_a_while(request: Message, connection: Connection) -> None:
    """So late that the client is watched meanwhile."""
    await asyncio.sleep(2 * WATCH_DELAY_S)
    await at_once(request, connection)


@contextmanager
def saved() -> Iterator[list[object]]:
    """Objects of this package that only the collector finds, without those from before."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += [one for one in gc.garbage if type(one).__module__.startswith("llm_backend")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("answer", [at_once, after_a_while])
@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "streamed"])
async def test_a_relayed_answer_is_freed_without_the_collector(tmp_path, answer, body):
    async with FakeUpstream(answer=answer) as fake:
        backends = [backend(fake, "far", "m")]
        async with gateway(tmp_path, backends=backends, store_chats="always") as served:
            await served.ask(post(body))  # what is made once is made
            with saved() as found:
                for _ in range(3):
                    assert (await served.ask(post(body))).status == 200

    assert not found


def asked(method: str, path: str, body: bytes = b"{}") -> bytes:
    head = f"{method} /v1{path} HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("has_upstream", [True, False])
async def test_an_operation_on_what_is_not_there_is_freed_without_the_collector(
    tmp_path, has_upstream
):
    requests = [
        asked("POST", "/vector_stores/none", b'{"name": "a"}'),
        asked("DELETE", "/responses/none"),
        asked("DELETE", "/files/none"),
        asked("POST", "/webhook_endpoints/none", b'{"name": "a"}'),
    ]
    async with FakeUpstream(answer=at_once) as fake:
        backends = [backend(fake, "far", "m")] if has_upstream else []
        async with gateway(tmp_path, backends=backends) as served:
            for one in requests:
                await served.ask(one)
            with saved() as found:
                statuses = [(await served.ask(one)).status for one in requests]

    assert statuses == [200 if has_upstream else 404] * 3 + [404]
    assert not found


@pytest.mark.parametrize("body", [CHAT, STREAMED], ids=["whole", "streamed"])
async def test_an_error_of_a_bridged_stream_is_freed_without_the_collector(tmp_path, body):
    error = b'data: {"error": {"message": "no", "type": "server_error", "code": "c"}}\n\n'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
    fake = FakeUpstream(answer=head % len(error) + error)
    asks = asked("POST", "/responses", b'{"model": "m", "input": "a"%b}' % body[len(CHAT) - 1 : -1])
    async with fake:
        backends = [backend(fake, "far", "m", wire="chat")]
        async with gateway(tmp_path, backends=backends) as served:
            await served.ask(asks)
            with saved() as found:
                await served.ask(asks)

    assert not found


class Broken(Exception):
    """An error whose frames hold what was asked."""


Errors = list[weakref.ref[Broken]]


def broken(errors: Errors) -> Broken:
    error = Broken()
    errors.append(weakref.ref(error))
    return error


async def fail_in_group_commit(errors: Errors) -> None:
    async def write_all(items: Sequence[str]) -> Sequence[Exception]:
        return [broken(errors) for _ in items]

    await GroupCommit(write_all).write("a")


async def fail_in_write_queue(errors: Errors) -> None:
    async def commit(works: Sequence[Any]) -> Sequence[Any]:
        raise broken(errors)

    queue = WriteQueue(commit)
    try:
        await queue.write(lambda _: None)
    finally:
        await queue.close()


async def fail_in_pending_requests(errors: Errors) -> None:
    pending: PendingRequests[None] = PendingRequests()
    number = pending.begin()
    asyncio.get_running_loop().call_soon(lambda: pending.fail(number, broken(errors)))
    await pending.wait(number)


async def fail_in_upload(errors: Errors) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"beginning"
        raise broken(errors)

    async with FakeUpstream(answer=at_once) as fake, upstream_of(fake) as upstream:
        head = {"method": "POST", "path": "/x", "query": b"", "headers": []}
        await upstream.exchange(**head, body=pieces())


@pytest.mark.parametrize(
    "fail", [fail_in_group_commit, fail_in_write_queue, fail_in_pending_requests, fail_in_upload]
)
async def test_an_error_of_what_was_waited_for_is_freed_without_the_collector(
    fail: Callable[[Errors], Awaitable[None]],
):
    errors: Errors = []
    gc.disable()
    try:
        with pytest.raises((Broken, UpstreamFailed)):
            await fail(errors)
        await asyncio.sleep(0)
        is_freed = [error() is None for error in errors]
    finally:
        gc.enable()

    assert is_freed == [True]
