"""A request that comes again gets the answer that it got before."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.datastructures import Headers

from llm_backend.access.authentication.principal import Caller
from llm_backend.access.idempotency.idempotency_keys import Idempotency
from llm_backend.access.idempotency.shared_answers import LEASE_S, RETENTION_S, SharedAnswers
from llm_backend.access.idempotency.stored_answer import ANSWER_BYTES
from llm_backend.errors import Conflict, InvalidRequest
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import KeptAnswers

PIECE = b"data: 1\n\n"


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
        is_read: bool = True,
    ):
        headers = Headers({} if key is None else {"Idempotency-Key": key})
        request = SimpleNamespace(
            http=SimpleNamespace(
                headers=headers,
                method="POST",
                scope={"query_string": query},
                receive=asyncio.Event().wait,
            ),
            raw_body=body,
            caller=Caller(key_id=caller),
            path={"id": path},
            operation=SimpleNamespace(
                operation_id="createConversationItems", administers=administers
            ),
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


async def test_the_same_request_gets_the_same_answer_and_is_told():
    server = Server(body=b"!")
    first, second = await server.ask(), await server.ask()

    assert first[1] == second[1] == b"1!"
    assert second[0]["headers"] == [(b"x", b"1"), (b"idempotent-replayed", b"true")]


async def test_another_key_caller_or_none_is_another_request():
    server = Server()
    answers = [await server.ask(), await server.ask("l"), await server.ask(caller="b"),
               await server.ask(None), await server.ask(None)]  # fmt: skip

    assert [body for _, body in answers] == [b"1", b"2", b"3", b"4", b"5"]


async def test_the_same_key_at_another_path_or_query_is_another_request():
    server = Server()
    answers = [await server.ask(), await server.ask(path="2"), await server.ask(query=b"a=1")]

    assert [body for _, body in answers] == [b"1", b"2", b"3"]


async def test_what_an_administrator_is_told_once_is_not_kept():
    server = Server()
    answers = [await server.ask(administers=True) for _ in range(2)]

    assert [body for _, body in answers] == [b"1", b"2"]
    assert not server.idempotency._kept


async def test_an_answer_in_many_pieces_weighs_its_bytes():
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


async def test_who_asks_again_meanwhile_waits_for_the_answer():
    server = Server()
    server.admission = asyncio.Event()
    both = [asyncio.create_task(server.ask()) for _ in range(2)]
    await asyncio.sleep(0)
    server.admission.set()

    assert [body for _, body in await asyncio.gather(*both)] == [b"1", b"1"]


async def test_a_client_that_left_leaves_its_key_to_the_next():
    server = Server()
    server.admission = asyncio.Event()
    first, second = [asyncio.create_task(server.ask()) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    server.admission.set()

    assert (await second)[1] == b"2"


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_asks_to_come_again_is_answered_anew(status: int):
    server = Server(status=status)

    assert [(await server.ask())[1] for _ in range(2)] == [b"1", b"2"]


async def test_an_answer_is_kept_for_an_hour():
    server = Server()
    await server.ask()
    server.clock.now = RETENTION_S

    assert (await server.ask())[1] == b"2"


async def test_a_large_answer_passes_and_is_made_again():
    server = Server(body=bytes(ANSWER_BYTES))

    assert [len((await server.ask())[1]) for _ in range(2)] == [ANSWER_BYTES + 1] * 2
    assert server.asked == 2


async def test_what_is_kept_is_bounded():
    server = Server(body=bytes(ANSWER_BYTES - 2048))
    for number in range(20):
        await server.ask(str(number))

    assert len(server.idempotency._kept) == 16
    assert (await server.ask("19"))[1][:2] == b"20"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield database


def servers(database: Database, clock: Clock, number: int = 2, **more: object) -> list[Server]:
    """Several that share one database."""
    return [
        Server(shared=SharedAnswers(KeptAnswers(database), clock=clock), **more)
        for _ in range(number)
    ]


async def settled(server: Server) -> None:
    await server.idempotency._shared.settle()


async def test_another_server_gives_the_answer_that_the_first_one_made(database):
    a, b = servers(database, Clock(), body=b"!\xff")
    first = await a.ask()
    await settled(a)
    second = await b.ask()

    assert first[1] == second[1] == b"1!\xff"
    assert second[0]["headers"] == [(b"x", b"1"), (b"idempotent-replayed", b"true")]
    assert (a.asked, b.asked) == (1, 0)


async def test_who_asks_another_server_meanwhile_waits_for_the_answer(database):
    a, b = servers(database, Clock())
    a.admission = asyncio.Event()
    first = asyncio.create_task(a.ask())
    while not a.asked:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.005)
    second = asyncio.create_task(b.ask())
    await asyncio.sleep(0.05)
    a.admission.set()

    assert [body for _, body in await asyncio.gather(first, second)] == [b"1", b"1"]
    assert b.asked == 0


async def test_a_key_of_another_body_is_refused_by_another_server(database):
    a, b = servers(database, Clock())
    await a.ask()

    with pytest.raises(Conflict):
        await b.ask(body=b'{"a": 1}')
    assert not b.idempotency._kept


async def test_what_one_server_did_not_keep_another_makes_anew(database):
    a, b = servers(database, Clock())
    a.status = 503
    await a.ask()
    await settled(a)

    assert (await b.ask())[0]["status"] == 200


async def test_what_a_dead_server_had_begun_another_makes_once_its_lease_is_over(database):
    clock = Clock()
    a, b = servers(database, clock)
    await a.idempotency._shared._stored.claim("n", digest="d", holder="dead", now=0, until=LEASE_S)
    clock.now = LEASE_S - 1.0
    waiting = asyncio.create_task(b.idempotency._shared.claim("n", "d"))
    await asyncio.sleep(0.05)

    assert not waiting.done()
    clock.now = LEASE_S
    assert await waiting is None


async def test_a_lease_is_renewed_as_long_as_the_answer_is_made(database):
    clock = Clock()
    a, b = (one.idempotency._shared for one in servers(database, clock))
    assert await a.claim("n", "d") is None
    clock.now = LEASE_S - 1.0
    await a._renew()
    clock.now = LEASE_S + 1.0

    assert await b._try_claim("n", "d") is not None


async def test_who_leaves_while_the_key_is_claimed_leaves_it_to_the_next(database):
    a, b = servers(database, Clock())
    first = asyncio.create_task(a.ask())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert (await b.ask())[1] == b"1"


async def test_without_its_database_a_server_knows_its_own_answers():
    class Down:
        async def claim(self, *_: object, **__: object) -> None:
            raise StoreUnavailable("gone")

    server = Server(shared=SharedAnswers(Down()))

    assert [(await server.ask())[1] for _ in range(2)] == [b"1", b"1"]


async def test_a_key_has_a_length():
    with pytest.raises(InvalidRequest):
        await Server().ask("k" * 256)
