"""Detached chats of other processes, asked for over a socket."""

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from starlette.types import Message, Receive, Scope, Send

from llm_backend.access import DEFAULT_PROJECT, Caller
from llm_backend.access.authentication.policy import Project
from llm_backend.contract.request_validation import ON_CHECKED
from llm_backend.controllers.services import detached_peers
from llm_backend.controllers.services.detached_answers import DetachedAnswers
from llm_backend.controllers.services.detached_chats import (
    HEADER,
    PATHS,
    DetachedChat,
    DetachedChats,
)
from llm_backend.controllers.services.detached_peers import DetachedPeers, peer_socket
from llm_backend.controllers.services.shared_detached_chats import SharedDetachedChats
from llm_backend.errors import Conflict, EngineUnavailable, ServiceUnavailable
from llm_backend.json_types import JsonObject
from llm_backend.sse import DONE, LONG_EVENT_BYTES, EventPiece
from llm_backend.store import (
    Database,
    DetachedChatLeases,
    LeasedChat,
    StoreUnavailable,
    migrate,
)
from tests.store.conftest import database, database_url, kind, postgresql_url, sqlite_url

__all__ = ["database", "database_url", "kind", "postgresql_url", "sqlite_url"]  # fixtures

LONG = {"stream": True, "model": "m", "messages": ["a" * (2 * LONG_EVENT_BYTES)]}


@asynccontextmanager
async def two_processes() -> AsyncIterator[tuple[DetachedPeers, DetachedPeers, Path]]:
    with TemporaryDirectory() as folder:
        async with Database.open(f"sqlite:///{folder}/state.db") as database:
            await migrate(database)
            one, other = (process(database, Path(folder), pid) for pid in (1, 2))
            async with one.serve(), other.serve():
                yield one, other, Path(folder)


def process(database: Database, folder: Path | None, pid: int) -> DetachedPeers:
    """A process of the server with this folder; without one, of a server of its own."""
    chats = DetachedChats(limit=8, bytes_limit=1 << 20)
    server = folder.name if folder else str(pid)
    shared = SharedDetachedChats(DetachedChatLeases(database), chats, server=server)
    return DetachedPeers(chats, folder, pid, shared)


async def begin(
    peers: DetachedPeers, id: str, request: JsonObject, project_id: str = DEFAULT_PROJECT
) -> DetachedChat:
    """Begins a chat whose answer has not begun."""
    caller = Caller(key_id=None, project=Project(id=project_id, name=project_id))
    chat = peers.chats.begin(id, "/v1/chat/completions", {"caller": caller})

    peers.chats.add(chat, request)
    assert await peers.claim(chat, project_id)
    return chat


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
            dead.bind(str(peer_socket(folder, 3)))
        await begin(other, "the-chat", {**LONG, "messages": []})
        listed = await one.list_unanswered(DEFAULT_PROJECT)
        foreign = (
            await one.list_unanswered("proj_other"),
            await one.cancel("the-chat", "proj_other"),
        )
        missing = await one.follow("no-chat", DEFAULT_PROJECT)
        own = await other.list_unanswered(DEFAULT_PROJECT)

    assert [chat["id"] for chat in listed] == ["the-chat"]
    assert (foreign, missing, own) == (([], None), None, [])


async def test_an_answered_chat_that_is_not_over_is_held():
    async with two_processes() as (one, other, _):
        await begin(other, "the-chat", {**LONG, "messages": []})
        chat = other.chats.find("the-chat", DEFAULT_PROJECT)
        assert chat is not None
        chat.is_answered = True

        assert await one.list_unanswered(DEFAULT_PROJECT) == []
        assert not await one.claim(chat, DEFAULT_PROJECT)
        assert await one.claim(chat, "proj_other")


async def test_of_two_processes_one_begins_a_chat_of_the_same_id_at_the_same_time():
    begun: list[Scope] = []
    are_decided = asyncio.Barrier(2)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await scope["state"][ON_CHECKED]({**LONG, "messages": []})
        begun.append(scope)
        await are_decided.wait()

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
            detached = DetachedAnswers(app, peers.chats, peers, wait_stored=_never)
            await detached(scope, _never, send)
        except Conflict:
            await are_decided.wait()

    async with two_processes() as (one, other, _):
        await asyncio.gather(ask(one), ask(other))
        left = one.chats.list_unanswered(DEFAULT_PROJECT) + other.chats.list_unanswered(
            DEFAULT_PROJECT
        )

    assert len(begun) == 1
    assert left == []


async def test_chats_are_found_while_another_process_hangs(monkeypatch):
    monkeypatch.setattr(detached_peers, "TIMEOUT_S", 3600)
    async with two_processes() as (one, other, folder), asyncio.timeout(60):
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(peer_socket(folder, 0)))  # the first that is asked
            silent.listen()
            await begin(other, "the-chat", {**LONG, "messages": []})
            followed = await one.follow("the-chat", DEFAULT_PROJECT)
            assert followed is not None
            await followed.close()

            assert await one.cancel("the-chat", DEFAULT_PROJECT) is not None


async def test_a_chat_that_a_hanging_process_may_have_is_not_reported_missing(monkeypatch):
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
        await asyncio.start_unix_server(hang, peer_socket(folder, 0)),
    ):
        await begin(other, "the-chat", {**LONG, "messages": []})
        listed = await one.list_unanswered(DEFAULT_PROJECT)
        for find in (one.follow, one.cancel):
            with pytest.raises(ServiceUnavailable):
                await find("no-chat", DEFAULT_PROJECT)

        assert [chat["id"] for chat in listed] == ["the-chat"]


async def test_a_chat_of_another_server_is_listed_and_followed_to_its_end_and_stopped(database):
    one, other = (process(database, None, pid) for pid in (1, 2))
    asked = {**LONG, "store": True, "messages": [{"role": "user", "content": "Hello!\0"}]}
    chat = await begin(other, "the-chat", asked)
    (listed,) = await one.list_unanswered(DEFAULT_PROJECT)
    own, foreign = (
        await other.list_unanswered(DEFAULT_PROJECT),
        await one.list_unanswered("proj_other"),
    )
    followed = await one.follow("the-chat", DEFAULT_PROJECT)
    assert followed is not None
    events = followed.events()
    head, comment = orjson.loads((await anext(events))[6:]), await anext(events)
    renewing = asyncio.create_task(other.shared.renew_forever())
    cancelled = await one.cancel("the-chat", DEFAULT_PROJECT)
    async with asyncio.timeout(60):
        await chat.receive_from(_never)()  # it is disconnected
    other.release(chat)
    rest = [event async for event in events]
    renewing.cancel()

    assert listed == cancelled
    assert (listed["id"], listed["is_elsewhere"]) == ("the-chat", True)
    assert "messages" not in listed
    assert (own, foreign) == ([], [])
    assert (head["messages"], head["is_elsewhere"]) == (asked["messages"], True)
    assert comment.startswith(b":")
    assert rest[-1] == DONE
    assert await one.follow("the-chat", DEFAULT_PROJECT) is None


async def test_the_error_of_a_follower_that_is_gone_refers_to_no_messages(database):
    chat = await begin(process(database, None, 1), "the-chat", LONG)
    events = chat.events()
    await anext(events)
    with pytest.raises(asyncio.CancelledError) as gone:
        await events.athrow(asyncio.CancelledError())

    frames = [
        frame for frame, _ in traceback.walk_tb(gone.tb) if "detached" in frame.f_code.co_filename
    ]
    held = [value for frame in frames for value in frame.f_locals.values()]
    assert frames[1:]
    assert not [one for one in held if isinstance(one, bytes) and len(one) > LONG_EVENT_BYTES]


async def test_the_words_of_a_chat_that_is_not_stored_are_not_shared(database):
    one, other = (process(database, None, pid) for pid in (1, 2))
    asked = {**LONG, "messages": [{"role": "user", "content": "Hello!"}]}
    await begin(other, "the-chat", asked)
    followed = await one.follow("the-chat", DEFAULT_PROJECT)
    assert followed is not None

    assert b"Hello!" not in await anext(followed.events())


async def test_the_row_of_a_chat_is_removed_although_its_claim_seemed_to_fail(database):
    class LostAnswers(DetachedChatLeases):
        async def add(self, chat: LeasedChat, *, now: int) -> bool:
            await super().add(chat, now=now)
            raise StoreUnavailable("The connection is lost.")

    peers, other = process(database, None, 1), process(database, None, 2)
    shared = SharedDetachedChats(LostAnswers(database), peers.chats, server="1")
    chat = await begin(DetachedPeers(peers.chats, None, 1, shared), "the-chat", LONG)
    assert [one["id"] for one in await other.list_unanswered(DEFAULT_PROJECT)] == ["the-chat"]

    shared.release(chat)
    await shared._releases.wait_idle()

    assert await other.list_unanswered(DEFAULT_PROJECT) == []


async def test_projects_do_not_see_each_others_ids(database):
    peers = process(database, None, 1)
    chats = [await begin(peers, "the-chat", LONG, project) for project in ("one", "two")]

    assert [peers.chats.find("the-chat", project) for project in ("one", "two")] == chats
    with pytest.raises(Conflict):
        await begin(peers, "the-chat", LONG, "two")
    peers.chats.end(chats[1])
    assert peers.chats.find("the-chat", "one") is chats[0]
    assert peers.chats.find("the-chat", "two") is None


async def test_the_death_of_another_server_ends_its_followers_with_an_error(database):
    one, other = (process(database, None, pid) for pid in (1, 2))
    await begin(other, "the-chat", {**LONG, "messages": []})
    followed = await one.follow("the-chat", DEFAULT_PROJECT)
    assert followed is not None
    events = followed.events()
    await anext(events)
    await DetachedChatLeases(database).renew(other.shared.holder, until=1)

    with pytest.raises(EngineUnavailable):
        await anext(events)
    assert await one.list_unanswered(DEFAULT_PROJECT) == []
    assert await one.cancel("the-chat", DEFAULT_PROJECT) is None


async def _never() -> Message:
    raise AssertionError("the body has been read")
