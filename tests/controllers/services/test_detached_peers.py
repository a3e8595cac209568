"""Detached chats of other processes, asked for over a socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from llm_backend.access import DEFAULT_PROJECT, Caller
from llm_backend.contract.body import BodyLimits
from llm_backend.controllers.services import detached_peers
from llm_backend.controllers.services.detached_answers import DetachedAnswers
from llm_backend.controllers.services.detached_chats import HEADER, PATHS, DetachedChats
from llm_backend.controllers.services.detached_peers import DetachedPeers
from llm_backend.errors import Conflict, ServiceUnavailable
from llm_backend.ipc import process_socket
from llm_backend.sse import LONG_EVENT_BYTES, EventPiece

LONG = {"stream": True, "model": "m", "messages": ["a" * (2 * LONG_EVENT_BYTES)]}


@asynccontextmanager
async def two_processes() -> AsyncIterator[tuple[DetachedPeers, DetachedPeers, Path]]:
    with TemporaryDirectory() as folder:
        one, other = (
            DetachedPeers(
                DetachedChats(limit=8, bytes_limit=1 << 20, body_limits=BodyLimits()),
                Path(folder),
                pid,
            )
            for pid in (1, 2)
        )
        async with one.serve(), other.serve():
            yield one, other, Path(folder)


async def begin(peers: DetachedPeers, id: str, request: object) -> None:
    """Begins a chat whose answer has not begun."""
    chat = peers.chats.begin(id, "/v1/chat/completions", {"caller": Caller(key_id=None)})

    async def receive() -> Message:
        return {"type": "http.request", "body": orjson.dumps(request)}

    async def add() -> None:
        peers.chats.add(chat)

    await chat.receive_from(receive, add)()


async def test_a_long_chat_of_another_process_arrives_in_pieces():
    async with two_processes() as (one, other, _):
        await begin(other, "long-chat", LONG)
        followed = await one.follow("long-chat", DEFAULT_PROJECT)
        assert followed is not None
        events, pieces = followed.events(), []
        while not b"".join(pieces).endswith(b"\n\n"):
            pieces.append(await anext(events))
        await events.aclose()

    assert all(isinstance(piece, EventPiece) for piece in pieces)
    assert orjson.loads(b"".join(pieces)[6:])["messages"] == LONG["messages"]


async def test_chats_are_of_their_project_and_a_dead_process_has_none():
    async with two_processes() as (one, other, folder):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(process_socket(folder, 3)))
        await begin(other, "the-chat", {**LONG, "messages": []})
        listed = await one.of(DEFAULT_PROJECT)
        foreign = await one.of("proj_other"), await one.cancel("the-chat", "proj_other")
        missing = await one.follow("no-chat", DEFAULT_PROJECT)
        own = await other.of(DEFAULT_PROJECT)

    assert [chat["id"] for chat in listed] == ["the-chat"]
    assert (foreign, missing, own) == (([], None), None, [])


async def test_an_answered_chat_that_is_not_over_is_held():
    async with two_processes() as (one, other, _):
        await begin(other, "the-chat", {**LONG, "messages": []})
        chat = other.chats.find("the-chat", DEFAULT_PROJECT)
        assert chat is not None
        chat.is_answered = True

        assert await one.of(DEFAULT_PROJECT) == []
        assert await one.has("the-chat", DEFAULT_PROJECT)
        assert not await one.has("the-chat", "proj_other")


async def test_two_processes_do_not_begin_the_same_id_at_the_same_time():
    begun: list[Scope] = []
    are_decided = asyncio.Barrier(2)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        begun.append(scope)
        await are_decided.wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": orjson.dumps({**LONG, "messages": []})}

    async def send(_: Message) -> None:
        raise AssertionError("nothing is answered here")

    async def ask(peers: DetachedPeers) -> None:
        scope = {
            "type": "http",
            "path": min(PATHS),
            "headers": [(HEADER.encode(), b"the-chat")],
            "state": {"caller": Caller(key_id=None)},
        }
        try:
            await DetachedAnswers(app, peers.chats, peers)(scope, receive, send)
        except Conflict:
            await are_decided.wait()

    async with two_processes() as (one, other, _):
        await asyncio.gather(ask(one), ask(other))
        left = one.chats.of(DEFAULT_PROJECT) + other.chats.of(DEFAULT_PROJECT)

    assert len(begun) < 2
    assert left == []


async def test_chats_are_found_while_another_process_hangs(monkeypatch):
    monkeypatch.setattr(detached_peers, "TIMEOUT_S", 3600)
    async with two_processes() as (one, other, folder), asyncio.timeout(60):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(process_socket(folder, 0)))  # the first that is asked
            silent.listen()
            await begin(other, "the-chat", {**LONG, "messages": []})
            followed = await one.follow("the-chat", DEFAULT_PROJECT)
            assert followed is not None
            await followed.close()

            assert await one.has("the-chat", DEFAULT_PROJECT)
            assert await one.cancel("the-chat", DEFAULT_PROJECT) is not None


async def test_a_chat_that_a_hanging_process_may_have_is_not_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(detached_peers, "TIMEOUT_S", 0.2)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begins a list and never ends it."""
        await reader.readline()
        writer.write(b'{"type":"Found","chat":{"id":"x"},"is_too_long":false}\n')
        await reader.read()
        writer.close()

    async with (
        two_processes() as (one, other, folder),
        asyncio.timeout(60),
        await asyncio.start_unix_server(hang, process_socket(folder, 0)),
    ):
        await begin(other, "the-chat", {**LONG, "messages": []})
        listed = await one.of(DEFAULT_PROJECT)
        for find in (one.follow, one.cancel):
            with pytest.raises(ServiceUnavailable):
                await find("no-chat", DEFAULT_PROJECT)

        assert [chat["id"] for chat in listed] == ["the-chat"]
        assert not await one.has("no-chat", DEFAULT_PROJECT)
