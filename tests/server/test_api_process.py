"""One of several API processes, as its parent sees it."""

import asyncio
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from llm_backend.app.upstreams import upstream_configs
from llm_backend.backends.local.shared_manager import ModelManagerServer
from llm_backend.backends.upstream.permits.permit_server import PermitServer
from llm_backend.server.api_child import ApiChild
from llm_backend.server.process_messages import Start
from llm_backend.settings import Settings, settings_as_json
from tests.gateway import backend
from tests.upstream import Connection, FakeUpstream, Message, Relay, post

DEADLINE_S = 60  # a process starts slowly beside others
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


@pytest.fixture
async def manager() -> AsyncIterator[ModelManagerServer]:
    """Manager without engines, in a folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        async with ModelManagerServer(Path(name)) as one:
            yield one


async def test_api_process_that_is_cut_off_finishes_answers_and_exits_with_1(
    tmp_path: Path, listener: socket.socket, manager: ModelManagerServer
) -> None:
    came, may_answer = asyncio.Event(), asyncio.Event()

    async def answer(_: Message, connection: Connection) -> None:
        came.set()
        await may_answer.wait()
        await connection.send(HEAD + b"{}")

    async with (
        asyncio.timeout(DEADLINE_S),
        FakeUpstream(answer=answer) as fake,
        AsyncExitStack() as stack,
    ):
        settings = Settings(
            models=(), data_dir=tmp_path, store_chats="never", processes=2,
            allowed_hosts=("relay",), backends=(backend(fake, "a"),),
        )  # fmt: skip
        await stack.enter_async_context(PermitServer(manager._folder, upstream_configs(settings)))
        child = await ApiChild.start(settings, listener, manager._folder)
        stack.callback(child.signal, signal.SIGKILL)
        assert await child.wait_until_serving() is None
        asking = asyncio.create_task(Relay(port=listener.getsockname()[1]).ask(post(CHAT)))
        await came.wait()
        for session in list(manager._server.sessions):
            session.close()
        may_answer.set()
        answered = await asking
        ended = await child.wait_for_exit()

    assert answered.status == 200
    assert ended == "ended with status 1"


def test_api_process_whose_parent_dies_during_start_exits_quietly(
    tmp_path: Path, listener: socket.socket
) -> None:
    settings = Settings(models=(), data_dir=tmp_path, processes=2)
    # no process listens in this folder
    start = Start(settings=settings_as_json(settings), shared=str(tmp_path))
    ours, theirs = socket.socketpair()
    with theirs:
        inherited = [listener.fileno(), theirs.fileno()]
        process = subprocess.Popen(
            [sys.executable, "-m", "llm_backend.server.api_process", *map(str, inherited)],
            pass_fds=inherited, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    with ours:
        ours.sendall(msgspec.json.encode(start) + b"\n")
    _, errors = process.communicate(timeout=DEADLINE_S)

    assert process.returncode in (0, 1)
    assert "Traceback" not in errors
