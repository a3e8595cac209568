"""Detached chats of other processes, asked for over a socket."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
from starlette.types import Message

from llm_backend.access import DEFAULT_PROJECT, Caller
from llm_backend.contract.body import BodyLimits
from llm_backend.controllers.services.detached_chats import DetachedChats
from llm_backend.controllers.services.detached_peers import DetachedPeers
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
