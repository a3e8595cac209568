"""Objects of an answer are freed with it: none is in a reference cycle, which only the garbage
collector would free.
"""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llm_backend.contract.client_disconnect import WATCH_DELAY_S
from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message, post

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
