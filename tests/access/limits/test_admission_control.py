"""Admission control: permissions, limits, the fair queue and metering, with scripted answers."""

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
from llm_backend.access.limits.rate_limits import RateLimits
from llm_backend.access.limits.request_policy import DefaultLimits, RequestPolicies
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.operations import Operation
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import (
    ApiError,
    ClientGone,
    DeadlineExceeded,
    RequestsLimited,
    ServiceUnavailable,
    TokensLimited,
)
from llm_backend.fair_queue import FairSemaphore
from llm_backend.json_types import JsonObject
from llm_backend.store import Database, migrate
from llm_backend.store.administration import Administration, Grants, StoredUsage, Tokens
from tests.patience import settle

AnswerRequest = Callable[[ApiRequest, Any], Awaitable[None]]


class SentAnswer:
    """Records the sent messages of an answer."""

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


class Requests:
    """Sends requests through admission control, over one ledger and one keyring."""

    def __init__(self, keyring: Keyring, ledger: Ledger, spending: Spending) -> None:
        self.keyring = keyring
        self.ledger = ledger
        self.spending = spending

    def admission(
        self, permits: FairSemaphore | None = None, deadline_s: float | None = None, **usual: int
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
            permits=permits,
            run_deadline_s=deadline_s,
            keys_refresh_s=5.0,
            body_limits=BodyLimits(),
        )

    async def ask(
        self,
        admission: AdmissionControl,
        answer: AnswerRequest,
        operation: str = "createChatCompletion",
        disconnects: asyncio.Event | None = None,
        **state: Any,
    ) -> SentAnswer:
        body = {"model": "m", "max_tokens": 10, **state.pop("body", {})}
        sent, leaving = SentAnswer(), disconnects or asyncio.Event()

        async def receive() -> JsonObject:
            await leaving.wait()
            return {"type": "http.disconnect"}

        request = ApiRequest(
            operation=cast(Operation, SimpleNamespace(operation_id=operation, path="/x")),
            http=HttpRequest({"type": "http", "state": state}, receive),
            caller=self.keyring.authenticate({"authorization": "Bearer sk-one"}),
            request_id="r",
            path={},
            query={},
            body=body,
            raw_body=orjson.dumps(body),
        )
        await admission(request, answer, sent)
        return sent

    def counted(self) -> list[tuple[bool, int, int, int]]:
        """Of each entry: whether a batch's, requests, input and output tokens."""
        return [
            (key.is_batch, amounts[0], amounts[1], amounts[3])
            for key, amounts in self.ledger._amounts.items()
        ]


@pytest.fixture
async def requests(tmp_path: Path) -> AsyncIterator[Requests]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        keyring = Keyring(Administration(database), ["sk-one"])
        await keyring.open()
        stored = StoredUsage(database)
        yield Requests(keyring, Ledger(stored), Spending(stored, keyring, {}, Grants(database)))


async def good(request: ApiRequest, send: Any) -> None:
    if request.meter is not None:
        request.meter.count_tokens(Tokens(input_tokens=20, output_tokens=5))
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def bad(_request: ApiRequest, send: Any) -> None:
    await send({"type": "http.response.start", "status": 400, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def test_successful_answer_is_counted_with_its_tokens(requests):
    await requests.ask(requests.admission(), good)
    await requests.ask(requests.admission(), good, is_batch=True)
    await requests.ask(requests.admission(), bad)

    assert requests.counted() == [(False, 1, 20, 5), (True, 1, 20, 5)]


STREAM = [(b"content-type", b"text/event-stream")]
EVENT = b'data: {"choices":[{"delta":{"content":"four"}}]}\n\n'


def streamed(*events: bytes, disconnects: bool = False, is_relayed: bool = True) -> Any:
    """A stream of an upstream's; its client may leave in the middle."""

    async def answer(request: ApiRequest, send: Any) -> None:
        if is_relayed:
            request.meter.mark_relayed()
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if disconnects:
            raise ClientGone

    return answer


def estimates(requests: Requests) -> dict[str, tuple[int, int]]:
    """Input and output tokens, by what they are known from."""
    return {key.detail: (said[1], said[3]) for key, said in requests.ledger._amounts.items()}


async def test_unreported_tokens_of_a_stream_are_estimated_and_marked(requests):
    told = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}\n\n'
    await requests.ask(requests.admission(), streamed(*[EVENT] * 3))
    with pytest.raises(ClientGone):
        await requests.ask(requests.admission(), streamed(*[EVENT] * 2, disconnects=True))
    asked = -(-len(b'{"model":"m","max_tokens":10}') // 4)

    assert estimates(requests) == {"estimated": (2 * asked, 5), "": (0, 0)}
    await requests.ask(requests.admission(), streamed(EVENT, told))
    assert estimates(requests) == {"estimated": (2 * asked, 5), "": (9, 2)}


async def test_stream_of_a_local_model_is_not_estimated(requests):
    with pytest.raises(ClientGone):
        await requests.ask(
            requests.admission(), streamed(EVENT, disconnects=True, is_relayed=False)
        )

    assert requests.counted() == [(False, 1, 0, 0)]


async def test_background_work_of_a_request_counts_for_it(requests):
    later_tasks: list[asyncio.Task[None]] = []

    async def later(meter: RequestMeter) -> None:
        await asyncio.sleep(0.01)
        meter.count_tokens(Tokens(input_tokens=1, output_tokens=1))

    async def answer(request: ApiRequest, send: Any) -> None:
        later_tasks.append(asyncio.create_task(later(request.meter)))
        await good(request, send)

    await requests.ask(requests.admission(), answer)
    await later_tasks[0]

    assert requests.counted() == [(False, 1, 21, 6)]


async def test_exempt_operation_is_neither_counted_nor_limited(requests):
    admission = requests.admission(key_requests_per_minute=1)
    for _ in range(3):
        sent = await requests.ask(admission, good, operation="listFiles")

    assert (sent.status, sent.headers, requests.counted()) == (200, {}, [])


async def test_limits_of_keys_and_models_are_enforced_and_in_headers(requests):
    admission = requests.admission(
        requests_per_minute=5, key_requests_per_minute=2, tokens_per_minute=1000
    )
    sent = await requests.ask(admission, good)
    await requests.ask(admission, good)

    assert sent.headers["x-ratelimit-limit-requests"] == "2"
    assert sent.headers["x-ratelimit-remaining-requests"] == "1"
    with pytest.raises(RequestsLimited, match="key"):
        await requests.ask(admission, good)


async def test_alias_shares_limit_and_price_of_its_model(requests):
    admission = requests.admission(requests_per_minute=2)
    await requests.ask(admission, good)
    await requests.ask(admission, good, body={"model": "alias"})

    with pytest.raises(RequestsLimited):
        await requests.ask(admission, good, body={"model": "alias"})
    await requests.ask(admission, good, body={"model": "route"})
    assert {key.model: amounts[0] for key, amounts in requests.ledger._amounts.items()} == {
        "m": 2, "route": 1,
    }  # fmt: skip


def by(*steps: str) -> AnswerRequest:
    """An answer of the last of these models; those before could not."""

    async def answer(request: ApiRequest, send: Any) -> None:
        for step in steps:
            await request.meter.switch_model(step)
        await good(request, send)

    return answer


async def test_usage_of_a_route_counts_for_the_model_that_answered(requests):
    admission, route = requests.admission(), {"model": "route"}
    await requests.ask(admission, by("m"), body=route)
    await requests.ask(admission, by("m", "n"), body=route)

    assert {key.model: amounts[:2] for key, amounts in requests.ledger._amounts.items()} == {
        "m": [1, 20], "n": [1, 20],
    }  # fmt: skip


async def test_limits_of_a_route_are_those_of_the_model_that_answers(requests):
    admission, route = (
        requests.admission(requests_per_minute=2, tokens_per_minute=1000),
        {"model": "route"},
    )
    await requests.ask(admission, good)
    sent = await requests.ask(admission, by("m"), body=route)

    assert sent.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(sent.headers["x-ratelimit-remaining-tokens"]) < 1000 - 25
    with pytest.raises(RequestsLimited, match="m in project"):
        await requests.ask(admission, by("m"), body=route)
    await requests.ask(admission, by("n"), body=route)


async def test_failed_step_of_a_route_returns_its_tokens(requests):
    admission = requests.admission(tokens_per_minute=1000)
    await requests.ask(admission, by("m", "n"), body={"model": "route"})
    of_m = await requests.ask(admission, good)
    of_n = await requests.ask(admission, good, body={"model": "n"})

    assert int(of_m.headers["x-ratelimit-remaining-tokens"]) > 1000 - 25  # its own alone
    assert int(of_n.headers["x-ratelimit-remaining-tokens"]) < 1000 - 25


async def test_batch_line_counts_usage_of_a_route_without_its_limits(requests):
    admission = requests.admission(requests_per_minute=1)
    for _ in range(2):
        await requests.ask(admission, by("m"), body={"model": "route"}, is_batch=True)

    assert [(key.model, amounts[0]) for key, amounts in requests.ledger._amounts.items()] == [
        ("m", 2)
    ]


async def test_estimated_tokens_are_corrected_by_reported_ones(requests):
    admission = requests.admission(tokens_per_minute=100)
    for _ in range(3):  # reckoned with some 20 each, and 25 in truth
        await requests.ask(admission, good)
    for _ in range(9):  # what fails costs no tokens
        await requests.ask(admission, bad)
    sent = await requests.ask(admission, bad, body={"max_tokens": 1})

    assert int(sent.headers["x-ratelimit-remaining-tokens"]) == 100 - 75 - 8
    with pytest.raises(TokensLimited):
        await requests.ask(admission, good, body={"max_tokens": 90})


async def test_batch_lines_take_nothing_of_rate_limits(requests):
    admission = requests.admission(requests_per_minute=1)
    for _ in range(3):
        await requests.ask(admission, good, is_batch=True)

    assert requests.counted() == [(True, 3, 60, 15)]


async def held(
    started: asyncio.Event, proceed: asyncio.Event, request: ApiRequest, send: Any
) -> None:
    started.set()
    await proceed.wait()
    await good(request, send)


@pytest.mark.parametrize("usual", ["key_concurrent_requests", "project_concurrent_requests"])
async def test_requests_beyond_the_concurrency_limit_are_refused(requests, usual):
    admission, started, proceed = requests.admission(**{usual: 1}), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(
        requests.ask(admission, lambda request, send: held(started, proceed, request, send))
    )
    await started.wait()

    with pytest.raises(RequestsLimited, match="at once"):
        await requests.ask(admission, good)
    proceed.set()
    assert (await first).status == 200
    assert (await requests.ask(admission, good)).status == 200


async def test_a_request_waits_for_its_turn_unless_its_client_leaves(requests):
    permits = FairSemaphore(1, depth=10, timeout_s=5)
    admission, started, proceed = requests.admission(permits), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(
        requests.ask(admission, lambda request, send: held(started, proceed, request, send))
    )
    await started.wait()
    disconnects = asyncio.Event()
    second = asyncio.create_task(requests.ask(admission, good, disconnects=disconnects))
    third = asyncio.create_task(requests.ask(admission, good))
    await settle()
    disconnects.set()

    with pytest.raises(ClientGone):
        await second
    proceed.set()
    assert [(await first).status, (await third).status] == [200, 200]
    assert permits.try_acquire()


async def test_full_queue_raises_overloaded(requests):
    permits = FairSemaphore(1, depth=0, timeout_s=5)
    await permits.acquire("caller")

    with pytest.raises(ServiceUnavailable):
        await requests.ask(requests.admission(permits), good)
    assert requests.counted() == []


async def test_answer_beyond_the_run_deadline_is_an_error(requests):
    async def slow(_request: ApiRequest, _send: Any) -> None:
        await asyncio.sleep(5)

    with pytest.raises(DeadlineExceeded) as refused:
        await requests.ask(requests.admission(deadline_s=0.01), slow)
    assert refused.value.status == 504


async def test_a_stream_that_takes_too_long_ends_with_an_error_event(requests):
    async def endless(_request: ApiRequest, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n", "more_body": True})
        await asyncio.sleep(5)

    sent = await requests.ask(requests.admission(deadline_s=0.01), endless)

    assert sent.body.startswith(b"data: {}\n\n")
    assert b"deadline_exceeded" in sent.body


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ((), b"data: {half\n\ndata: {"),
        ([(b"content-encoding", b"gzip")], b"data: {half"),
        ([(b"content-length", b"99")], b"data: {half"),
    ],
)
async def test_deadline_inside_an_event_adds_a_readable_error_event(requests, more, end):
    async def stuck(_request: ApiRequest, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream"), *more]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in (b"data: {}\n\n", b"data: {", b"half"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(5)

    sent = await requests.ask(requests.admission(deadline_s=0.01), stuck)

    said = sent.body.removeprefix(b"data: {}\n\n")
    assert said.startswith(end)
    assert (b"deadline_exceeded" in said) == (not more)


async def test_deadline_after_the_end_of_an_answer_sends_nothing(requests):
    async def lingering(_request: ApiRequest, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}\n\n"})
        await asyncio.sleep(5)

    sent = await requests.ask(requests.admission(deadline_s=0.01), lingering)

    assert sent.body == b"data: {}\n\n"


async def test_broken_answer_releases_its_permits(requests):
    async def broken(_request: ApiRequest, _send: Any) -> None:
        raise ApiError("no")

    permits = FairSemaphore(1, depth=0, timeout_s=5)
    admission = requests.admission(permits, key_concurrent_requests=1)
    for _ in range(2):
        with pytest.raises(ApiError, match="no"):
            await requests.ask(admission, broken)

    assert permits.try_acquire()


async def disconnect_after_sending(request: ApiRequest, _send: Any) -> None:
    """An upstream has got it, and has not begun to answer."""
    request.meter.mark_relayed()
    request.meter.mark_abandoned()
    raise ClientGone


async def disconnect_in_queue(request: ApiRequest, _send: Any) -> None:
    """No upstream has got it."""
    request.meter.mark_relayed()
    raise ClientGone


async def test_request_sent_upstream_counts_though_its_client_disconnects(requests):
    admission = requests.admission(tokens_per_minute=1000, key_concurrent_requests=1)
    for answer in (disconnect_after_sending, disconnect_in_queue, disconnect_after_sending):
        with pytest.raises(ClientGone):
            await requests.ask(admission, answer)
    asked = -(-len(b'{"model":"m","max_tokens":10}') // 4)
    sent = await requests.ask(admission, bad, body={"max_tokens": 1})

    assert estimates(requests) == {"estimated": (2 * asked, 0), "": (0, 0)}
    assert requests.counted()[-1][1] == 2
    assert int(sent.headers["x-ratelimit-remaining-tokens"]) == 1000 - 2 * asked - 8


async def test_begun_local_answer_counts_though_its_client_disconnects(requests):
    async def begun(request: ApiRequest, _send: Any) -> None:
        request.meter.count_tokens(Tokens(input_tokens=20, output_tokens=1))
        raise ClientGone

    with pytest.raises(ClientGone):
        await requests.ask(requests.admission(), begun)

    assert requests.counted() == [(False, 1, 20, 1)]
