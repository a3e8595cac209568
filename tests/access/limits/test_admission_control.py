"""What a request that asks a model passes, with answers that are made up here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
from starlette.requests import Request as HttpRequest

from llm_backend.access import Keyring, Ledger, RequestMeter, Spending
from llm_backend.access.limits.admission_control import AdmissionControl
from llm_backend.access.limits.fair_semaphore import FairSemaphore
from llm_backend.access.limits.rate_limits import RateLimits
from llm_backend.access.limits.request_policy import DefaultLimits, RequestPolicies
from llm_backend.contract.operations import Operation
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import (
    ApiError,
    ClientGone,
    DeadlineExceeded,
    Overloaded,
    RequestsLimited,
    TokensLimited,
)
from llm_backend.json_types import JsonObject
from llm_backend.store import Database, migrate
from llm_backend.store.administration import Administration, StoredUsage, Tokens

AnswerRequest = Callable[[ApiRequest, Any], Awaitable[None]]


class Wire:
    """What was sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def __call__(self, message: JsonObject) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")


class Gates:
    """Gates over one ledger and one keyring; `ask` sends a request through one."""

    def __init__(self, keyring: Keyring, ledger: Ledger, spending: Spending) -> None:
        self.keyring = keyring
        self.ledger = ledger
        self.spending = spending

    def admission(
        self, capacity: FairSemaphore | None = None, deadline_s: float | None = None, **usual: int
    ) -> AdmissionControl:
        limits = RateLimits()
        targets = {"alias": ["m"], "route": ["m", "n"]}
        plans = RequestPolicies(
            self.keyring, limits, DefaultLimits(**usual), lambda name: targets.get(name, ())
        )
        return AdmissionControl(
            ledger=self.ledger,
            spending=self.spending,
            policies=plans,
            limits=limits,
            capacity=capacity,
            run_deadline_s=deadline_s,
        )

    async def ask(
        self,
        admission: AdmissionControl,
        answer: AnswerRequest,
        operation: str = "createChatCompletion",
        leaves: asyncio.Event | None = None,
        **state: Any,
    ) -> Wire:
        body = {"model": "m", "max_tokens": 10, **state.pop("body", {})}
        wire, leaving = Wire(), leaves or asyncio.Event()

        async def receive() -> JsonObject:
            await leaving.wait()
            return {"type": "http.disconnect"}

        request = ApiRequest(
            operation=cast(Operation, SimpleNamespace(operation_id=operation)),
            http=HttpRequest({"type": "http", "state": state}, receive),
            caller=self.keyring.authenticate({"authorization": "Bearer sk-one"}),
            request_id="r",
            path={},
            query={},
            body=body,
            raw_body=orjson.dumps(body),
        )
        await admission(request, answer, wire)
        return wire

    def counted(self) -> list[tuple[bool, int, int, int]]:
        """Of each entry: whether a batch's, requests, input and output tokens."""
        return [
            (key.is_batch, amounts[0], amounts[1], amounts[3])
            for key, amounts in self.ledger._amounts.items()
        ]


@pytest.fixture
async def gates(tmp_path: Path) -> AsyncIterator[Gates]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        keyring = Keyring(Administration(database), ["sk-one"])
        await keyring.open()
        stored = StoredUsage(database)
        yield Gates(keyring, Ledger(stored), Spending(stored, keyring, {}))


async def good(request: ApiRequest, send: Any) -> None:
    if request.meter is not None:
        request.meter.count_tokens(Tokens(input_tokens=20, output_tokens=5))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def bad(_request: ApiRequest, send: Any) -> None:
    await send({"type": "http.response.start", "status": 400, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def test_a_good_answer_is_counted_with_what_it_used(gates):
    await gates.ask(gates.admission(), good)
    await gates.ask(gates.admission(), good, is_batch=True)
    await gates.ask(gates.admission(), bad)

    assert gates.counted() == [(False, 1, 20, 5), (True, 1, 20, 5)]


STREAM = [(b"content-type", b"text/event-stream")]
EVENT = b'data: {"choices":[{"delta":{"content":"four"}}]}\n\n'


def streamed(*events: bytes, leaves: bool = False, is_relayed: bool = True) -> Any:
    """A stream of an upstream's; its client may leave in the middle."""

    async def answer(request: ApiRequest, send: Any) -> None:
        if is_relayed:
            request.meter.mark_relayed()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if leaves:
            raise ClientGone

    return answer


def estimates(gates: Gates) -> dict[str, tuple[int, int]]:
    """Input and output tokens, by what they are known from."""
    return {key.detail: (said[1], said[3]) for key, said in gates.ledger._amounts.items()}


async def test_what_nobody_tells_of_a_stream_is_estimated_and_marked_so(gates):
    told = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    await gates.ask(gates.admission(), streamed(*[EVENT] * 3))
    with pytest.raises(ClientGone):
        await gates.ask(gates.admission(), streamed(*[EVENT] * 2, leaves=True))
    asked = -(-len(b'{"model":"m","max_tokens":10}') // 4)

    assert estimates(gates) == {"estimated": (2 * asked, 5), "": (0, 0)}
    await gates.ask(gates.admission(), streamed(EVENT, told))
    assert estimates(gates) == {"estimated": (2 * asked, 5), "": (9, 2)}


async def test_a_stream_of_a_local_model_counts_itself(gates):
    with pytest.raises(ClientGone):
        await gates.ask(gates.admission(), streamed(EVENT, leaves=True, is_relayed=False))

    assert gates.counted() == [(False, 1, 0, 0)]


async def test_what_goes_on_behind_an_answer_counts_for_it(gates):
    behind: list[asyncio.Task[None]] = []

    async def later(meter: RequestMeter) -> None:
        await asyncio.sleep(0.01)
        meter.count_tokens(Tokens(input_tokens=1, output_tokens=1))

    async def answer(request: ApiRequest, send: Any) -> None:
        behind.append(asyncio.create_task(later(request.meter)))
        await good(request, send)

    await gates.ask(gates.admission(), answer)
    await behind[0]

    assert gates.counted() == [(False, 1, 21, 6)]


async def test_what_asks_no_model_is_neither_counted_nor_limited(gates):
    admission = gates.admission(key_requests_per_minute=1)
    for _ in range(3):
        wire = await gates.ask(admission, good, operation="listFiles")

    assert (wire.status, wire.headers, gates.counted()) == (200, {}, [])


async def test_limits_are_told_and_held_of_keys_and_of_models(gates):
    admission = gates.admission(
        requests_per_minute=5, key_requests_per_minute=2, tokens_per_minute=1000
    )
    wire = await gates.ask(admission, good)
    await gates.ask(admission, good)

    assert wire.headers["x-ratelimit-limit-requests"] == "2"
    assert wire.headers["x-ratelimit-remaining-requests"] == "1"
    with pytest.raises(RequestsLimited, match="key"):
        await gates.ask(admission, good)


async def test_another_name_of_a_model_has_no_limit_and_no_price_of_its_own(gates):
    admission = gates.admission(requests_per_minute=2)
    await gates.ask(admission, good)
    await gates.ask(admission, good, body={"model": "alias"})

    with pytest.raises(RequestsLimited):
        await gates.ask(admission, good, body={"model": "alias"})
    await gates.ask(admission, good, body={"model": "route"})
    assert {key.model: amounts[0] for key, amounts in gates.ledger._amounts.items()} == {
        "m": 2, "route": 1,
    }  # fmt: skip


def by(*steps: str) -> AnswerRequest:
    """An answer of the last of these models; those before could not."""

    async def answer(request: ApiRequest, send: Any) -> None:
        for step in steps:
            await request.meter.switch_model(step)
        await good(request, send)

    return answer


async def test_a_routes_usage_is_that_of_the_model_that_answered(gates):
    admission, route = gates.admission(), {"model": "route"}
    await gates.ask(admission, by("m"), body=route)
    await gates.ask(admission, by("m", "n"), body=route)

    assert {key.model: amounts[:2] for key, amounts in gates.ledger._amounts.items()} == {
        "m": [1, 20], "n": [1, 20],
    }  # fmt: skip


async def test_a_routes_limits_are_those_of_the_model_that_answers(gates):
    admission, route = (
        gates.admission(requests_per_minute=2, tokens_per_minute=1000),
        {"model": "route"},
    )
    await gates.ask(admission, good)
    wire = await gates.ask(admission, by("m"), body=route)

    assert wire.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(wire.headers["x-ratelimit-remaining-tokens"]) < 1000 - 25
    with pytest.raises(RequestsLimited, match="m in project"):
        await gates.ask(admission, by("m"), body=route)
    await gates.ask(admission, by("n"), body=route)


async def test_a_step_that_did_not_answer_gives_its_tokens_back(gates):
    admission = gates.admission(tokens_per_minute=1000)
    await gates.ask(admission, by("m", "n"), body={"model": "route"})
    of_m = await gates.ask(admission, good)
    of_n = await gates.ask(admission, good, body={"model": "n"})

    assert int(of_m.headers["x-ratelimit-remaining-tokens"]) > 1000 - 25  # its own alone
    assert int(of_n.headers["x-ratelimit-remaining-tokens"]) < 1000 - 25


async def test_a_line_of_a_batch_has_a_routes_usage_and_none_of_its_limits(gates):
    admission = gates.admission(requests_per_minute=1)
    for _ in range(2):
        await gates.ask(admission, by("m"), body={"model": "route"}, is_batch=True)

    assert [(key.model, amounts[0]) for key, amounts in gates.ledger._amounts.items()] == [("m", 2)]


async def test_tokens_are_corrected_once_they_are_known(gates):
    admission = gates.admission(tokens_per_minute=100)
    for _ in range(3):  # reckoned with some 20 each, and 25 in truth
        await gates.ask(admission, good)
    for _ in range(9):  # what fails costs no tokens
        await gates.ask(admission, bad)
    wire = await gates.ask(admission, bad, body={"max_tokens": 1})

    assert int(wire.headers["x-ratelimit-remaining-tokens"]) == 100 - 75 - 8
    with pytest.raises(TokensLimited):
        await gates.ask(admission, good, body={"max_tokens": 90})


async def test_a_batch_has_a_pace_of_its_own(gates):
    admission = gates.admission(requests_per_minute=1)
    for _ in range(3):
        await gates.ask(admission, good, is_batch=True)

    assert gates.counted() == [(True, 3, 60, 15)]


async def held(
    started: asyncio.Event, go_on: asyncio.Event, request: ApiRequest, send: Any
) -> None:
    started.set()
    await go_on.wait()
    await good(request, send)


@pytest.mark.parametrize("usual", ["key_concurrent_requests", "project_concurrent_requests"])
async def test_no_more_run_at_once_than_may(gates, usual):
    admission, started, go_on = gates.admission(**{usual: 1}), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(
        gates.ask(admission, lambda request, send: held(started, go_on, request, send))
    )
    await started.wait()

    with pytest.raises(RequestsLimited, match="at once"):
        await gates.ask(admission, good)
    go_on.set()
    assert (await first).status == 200
    assert (await gates.ask(admission, good)).status == 200


async def test_a_request_waits_for_its_turn_unless_its_client_leaves(gates):
    capacity = FairSemaphore(1, depth=10, timeout_s=5)
    admission, started, go_on = gates.admission(capacity), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(
        gates.ask(admission, lambda request, send: held(started, go_on, request, send))
    )
    await started.wait()
    leaves = asyncio.Event()
    second = asyncio.create_task(gates.ask(admission, good, leaves=leaves))
    third = asyncio.create_task(gates.ask(admission, good))
    await asyncio.sleep(0.01)
    leaves.set()

    with pytest.raises(ClientGone):
        await second
    go_on.set()
    assert [(await first).status, (await third).status] == [200, 200]
    assert capacity.try_acquire()


async def test_a_line_that_is_full_is_load(gates):
    capacity = FairSemaphore(1, depth=0, timeout_s=5)
    await capacity.acquire("caller")

    with pytest.raises(Overloaded):
        await gates.ask(gates.admission(capacity), good)
    assert gates.counted() == []


async def test_an_answer_that_takes_too_long_is_given_up(gates):
    async def slow(_request: ApiRequest, _send: Any) -> None:
        await asyncio.sleep(5)

    with pytest.raises(DeadlineExceeded) as refused:
        await gates.ask(gates.admission(deadline_s=0.01), slow)
    assert refused.value.status == 504


async def test_a_stream_that_takes_too_long_ends_with_an_error_event(gates):
    async def endless(_request: ApiRequest, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await asyncio.sleep(5)

    wire = await gates.ask(gates.admission(deadline_s=0.01), endless)

    assert wire.body.startswith(b"data: {}\n\n")
    assert b"deadline_exceeded" in wire.body


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ((), b"data: {half\n\ndata: {"),
        ([(b"content-encoding", b"gzip")], b"data: {half"),
        ([(b"content-length", b"99")], b"data: {half"),
    ],
)
async def test_a_deadline_in_the_middle_of_an_event_adds_only_what_can_be_read(gates, more, end):
    async def stuck(_request: ApiRequest, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream"), *more]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in (b"data: {}\n\n", b"data: {", b"half"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(5)

    wire = await gates.ask(gates.admission(deadline_s=0.01), stuck)

    said = wire.body.removeprefix(b"data: {}\n\n")
    assert said.startswith(end)
    assert (b"deadline_exceeded" in said) == (not more)


async def test_a_deadline_after_the_end_of_an_answer_says_nothing(gates):
    async def lingering(_request: ApiRequest, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n"})
        await asyncio.sleep(5)

    wire = await gates.ask(gates.admission(deadline_s=0.01), lingering)

    assert wire.body == b"data: {}\n\n"


async def test_an_answer_that_breaks_gives_its_places_back(gates):
    async def broken(_request: ApiRequest, _send: Any) -> None:
        raise ApiError("no")

    capacity = FairSemaphore(1, depth=0, timeout_s=5)
    admission = gates.admission(capacity, key_concurrent_requests=1)
    for _ in range(2):
        with pytest.raises(ApiError, match="no"):
            await gates.ask(admission, broken)

    assert capacity.try_acquire()


async def leaves_early(request: ApiRequest, _send: Any) -> None:
    """An upstream has got it, and has not begun to answer."""
    request.meter.mark_relayed()
    request.meter.mark_sent()
    raise ClientGone


async def leaves_the_line(request: ApiRequest, _send: Any) -> None:
    """No upstream has got it."""
    request.meter.mark_relayed()
    raise ClientGone


async def test_what_an_upstream_has_got_counts_though_its_client_leaves(gates):
    admission = gates.admission(tokens_per_minute=1000, key_concurrent_requests=1)
    for answer in (leaves_early, leaves_the_line, leaves_early):
        with pytest.raises(ClientGone):
            await gates.ask(admission, answer)
    asked = -(-len(b'{"model":"m","max_tokens":10}') // 4)
    wire = await gates.ask(admission, bad, body={"max_tokens": 1})

    assert estimates(gates) == {"estimated": (2 * asked, 0), "": (0, 0)}
    assert gates.counted()[-1][1] == 2
    assert int(wire.headers["x-ratelimit-remaining-tokens"]) == 1000 - 2 * asked - 8


async def test_what_a_local_model_has_begun_counts_though_its_client_leaves(gates):
    async def begun(request: ApiRequest, _send: Any) -> None:
        request.meter.count_tokens(Tokens(input_tokens=20, output_tokens=1))
        raise ClientGone

    with pytest.raises(ClientGone):
        await gates.ask(gates.admission(), begun)

    assert gates.counted() == [(False, 1, 20, 1)]
