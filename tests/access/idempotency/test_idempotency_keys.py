"""Idempotency keys: a repeated request gets the stored answer of the first one."""

import asyncio
import functools
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.datastructures import Headers

from llm_backend.access.authentication.principal import Caller
from llm_backend.access.idempotency.idempotency_keys import Idempotency
from llm_backend.access.idempotency.recorded_answer import ANSWER_BYTES
from llm_backend.access.idempotency.shared_answers import LEASE_S, RETENTION_S, SharedAnswers
from llm_backend.contract import load_document
from llm_backend.errors import ClientGone, Conflict, InvalidRequest
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import StoredAnswers
from tests.patience import settle

PIECE = b"data: 1\n\n"
SECRETS = {"client_secret", "signing_secret", "api_key", "value"}
COMBINED = ("allOf", "anyOf", "oneOf")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Answers with a number that grows, or with what it is told."""

    def __init__(
        self, *, status: int = 200, body: bytes = b"", shared: SharedAnswers | None = None
    ) -> None:
        self.asked = 0
        self.status, self.body = status, body
        self.pieces = 0  # before the end
        self.admission: asyncio.Event | None = None
        self.clock = Clock()
        self.idempotency = Idempotency(self._through, shared, clock=self.clock)

    async def _through(self, request, answer, send) -> None:
        await answer(request, send)

    async def ask(
        self,
        key: str | None = "k",
        body: bytes = b"{}",
        *,
        caller: str = "a",
        path: str = "1",
        query: bytes = b"",
        administers: bool = False,
        operation: str = "createConversationItems",
        is_read: bool = True,
        receive: Callable[[], Awaitable[object]] | None = None,
    ):
        headers = Headers({} if key is None else {"Idempotency-Key": key})
        request = SimpleNamespace(
            http=SimpleNamespace(
                headers=headers,
                method="POST",
                scope={"query_string": query},
                receive=receive or asyncio.Event().wait,
            ),
            raw_body=body,
            caller=Caller(key_id=caller),
            path={"id": path},
            operation=SimpleNamespace(operation_id=operation, administers=administers),
        )
        sent = []

        async def send(message) -> None:
            if is_read or not sent:
                sent.append(message)

        await self.idempotency(request, self._answer, send)
        return sent[0], b"".join(message["body"] for message in sent[1:])

    async def _answer(self, _request, send) -> None:
        self.asked += 1
        number = b"%d" % self.asked
        if self.admission is not None:
            await self.admission.wait()
        headers = [(b"x", number)]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        headers.append((b"added", b"by others"))
        await send({"type": "http.response.body", "body": number, "more_body": True})
        for _ in range(self.pieces):
            piece = bytes(bytearray(PIECE))  # each its own, as from a socket
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


async def test_repeated_request_gets_the_stored_answer_and_a_header():
    server = Server(body=b"!")
    first, second = await server.ask(), await server.ask()

    assert first[1] == second[1] == b"1!"
    assert second[0]["headers"] == [(b"x", b"1"), (b"idempotent-replayed", b"true")]


async def test_other_key_or_caller_is_another_request():
    server = Server()
    answers = [await server.ask(), await server.ask("l"), await server.ask(caller="b"),
               await server.ask(None), await server.ask(None)]  # fmt: skip

    assert [body for _, body in answers] == [b"1", b"2", b"3", b"4", b"5"]


async def test_the_same_key_at_another_path_or_query_is_another_request():
    server = Server()
    answers = [await server.ask(), await server.ask(path="2"), await server.ask(query=b"a=1")]

    assert [body for _, body in answers] == [b"1", b"2", b"3"]


def posts_with_secrets() -> list[str]:
    """Operations whose answers have a property with a secret's name, but for administration."""
    document = load_document()
    text = json.loads(document.text())

    def resolved(schema: dict[str, Any]) -> dict[str, Any]:
        while (reference := schema.get("$ref")) is not None:
            schema = functools.reduce(lambda part, key: part[key], reference.split("/")[1:], text)
        return schema

    def names(schema: dict[str, Any], depth: int = 3) -> Iterator[str]:
        schema = resolved(schema)
        properties = schema.get("properties", {})
        yield from properties
        parts = [*properties.values(), *(one for key in COMBINED for one in schema.get(key, ()))]
        for part in parts if depth else ():
            yield from names(part, depth - 1)

    def shows_secret(path: str, method: str) -> bool:
        answers = text["paths"][path][method]["responses"]
        contents = [
            content
            for status, answer in answers.items()
            if status.startswith("2")
            for content in resolved(answer).get("content", {}).values()
        ]
        return any(not SECRETS.isdisjoint(names(one.get("schema", {}))) for one in contents)

    return [
        name
        for name, one in document.operations.items()
        if one.method == "POST" and not one.administers and shows_secret(one.path, "post")
    ]


@pytest.mark.parametrize(
    "asked",
    [{"administers": True}, *({"operation": name} for name in posts_with_secrets())],
    ids=str,
)
async def test_answers_that_may_hold_a_secret_are_not_stored(asked):
    server = Server()
    answers = [await server.ask(**asked) for _ in range(2)]

    assert [body for _, body in answers] == [b"1", b"2"]
    assert not server.idempotency._recorded


async def test_repeated_request_whose_client_leaves_waits_no_longer():
    server = Server()
    server.admission = asyncio.Event()
    first = asyncio.create_task(server.ask())
    await settle()

    with pytest.raises(ClientGone):
        await server.ask(receive=AsyncMock(return_value={"type": "http.disconnect"}))
    server.admission.set()
    assert (await first)[1] == b"1"


async def test_answer_in_many_chunks_takes_the_memory_of_its_bytes():
    server = Server()
    server.pieces = 30_000
    tracemalloc.start()
    try:
        await server.ask(is_read=False)
        held_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert len((await server.ask())[1]) == 30_000 * len(PIECE) + 1
    assert held_bytes < 1_000_000


async def test_a_key_of_another_body_is_refused():
    server = Server()
    await server.ask()

    with pytest.raises(Conflict) as refused:
        await server.ask(body=b'{"a": 1}')
    assert (refused.value.status, refused.value.code) == (409, "idempotency_key_reused")


async def test_concurrent_repeat_waits_for_the_answer():
    server = Server()
    server.admission = asyncio.Event()
    both = [asyncio.create_task(server.ask()) for _ in range(2)]
    await asyncio.sleep(0)
    server.admission.set()

    assert [body for _, body in await asyncio.gather(*both)] == [b"1", b"1"]


async def test_disconnected_client_frees_its_key():
    server = Server()
    server.admission = asyncio.Event()
    first, second = [asyncio.create_task(server.ask()) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    server.admission.set()

    assert (await second)[1] == b"2"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_answer_with_a_status_to_retry_is_not_stored(status: int):
    server = Server(status=status)

    assert [(await server.ask())[1] for _ in range(2)] == [b"1", b"2"]


async def test_an_answer_is_kept_for_an_hour():
    server = Server()
    await server.ask()
    server.clock.now = RETENTION_S

    assert (await server.ask())[1] == b"2"


async def test_large_answer_is_sent_and_not_stored():
    server = Server(body=bytes(ANSWER_BYTES))

    assert [len((await server.ask())[1]) for _ in range(2)] == [ANSWER_BYTES + 1] * 2
    assert server.asked == 2


async def test_stored_answers_are_bounded():
    server = Server(body=bytes(ANSWER_BYTES - 2048))
    for number in range(20):
        await server.ask(str(number))

    assert len(server.idempotency._recorded) == 16
    assert (await server.ask("19"))[1][:2] == b"20"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield database


def servers(database: Database, clock: Clock, number: int = 2, **more: object) -> list[Server]:
    """Several that share one database."""
    return [
        Server(shared=SharedAnswers(StoredAnswers(database), clock=clock), **more)
        for _ in range(number)
    ]


async def settled(server: Server) -> None:
    await server.idempotency._shared.wait_idle()


async def test_answer_of_one_server_is_replayed_by_another(database):
    a, b = servers(database, Clock(), body=b"!\xff")
    first = await a.ask()
    await settled(a)
    second = await b.ask()

    assert first[1] == second[1] == b"1!\xff"
    assert second[0]["headers"] == [(b"x", b"1"), (b"idempotent-replayed", b"true")]
    assert (a.asked, b.asked) == (1, 0)


async def test_answer_of_another_server_is_replayed_until_its_own_hour_ends(database):
    wall = Clock()
    a, b = servers(database, wall)
    await a.ask()
    await settled(a)
    wall.now = b.clock.now = RETENTION_S - 10
    replayed = await b.ask()
    wall.now = b.clock.now = RETENTION_S
    await b.ask()

    assert replayed[1] == b"1"
    assert b.asked == 1


async def test_concurrent_repeat_at_another_server_waits(database):
    a, b = servers(database, Clock())
    a.admission = asyncio.Event()
    first = asyncio.create_task(a.ask())
    while not a.asked:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)
    second = asyncio.create_task(b.ask())
    await settle()
    a.admission.set()

    assert [body for _, body in await asyncio.gather(first, second)] == [b"1", b"1"]
    assert b.asked == 0


async def test_a_key_of_another_body_is_refused_by_another_server(database):
    a, b = servers(database, Clock())
    await a.ask()

    with pytest.raises(Conflict):
        await b.ask(body=b'{"a": 1}')
    assert not b.idempotency._recorded


async def test_unstored_answer_is_made_anew_by_another_server(database):
    a, b = servers(database, Clock())
    a.status = 503
    await a.ask()
    await settled(a)

    assert (await b.ask())[0]["status"] == 200


async def test_claim_of_a_dead_server_ends_with_its_lease(database):
    clock = Clock()
    a, b = servers(database, clock)
    await a.idempotency._shared._stored.claim("n", digest="d", holder="dead", now=0, until=LEASE_S)
    clock.now = LEASE_S - 1.0
    waiting = asyncio.create_task(b.idempotency._shared.claim("n", "d"))
    await settle()

    assert not waiting.done()
    clock.now = LEASE_S
    assert await waiting is None


async def test_claim_is_renewed_until_the_answer_ends(database):
    clock = Clock()
    a, b = (one.idempotency._shared for one in servers(database, clock))
    assert await a.claim("n", "d") is None
    clock.now = LEASE_S - 1.0
    await a._renew()
    clock.now = LEASE_S + 1.0

    assert await b._try_claim("n", "d") is not None


async def test_cancelled_claim_is_released(database):
    a, b = servers(database, Clock())
    first = asyncio.create_task(a.ask())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert (await b.ask())[1] == b"1"


async def test_server_replays_its_own_answers_during_an_outage():
    class Down:
        async def claim(self, *_: object, **__: object) -> None:
            raise StoreUnavailable("gone")

    server = Server(shared=SharedAnswers(Down()))

    assert [(await server.ask())[1] for _ in range(2)] == [b"1", b"1"]


async def test_key_length_is_limited():
    with pytest.raises(InvalidRequest):
        await Server().ask("k" * 256)
