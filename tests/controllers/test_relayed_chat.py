"""A relayed chat is remembered; what cannot be is said in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from starlette.requests import Request as HttpRequest

from llm_backend.backends.relayed import Relayed
from llm_backend.controllers.relay import Destination
from llm_backend.controllers.relayed_chat import relay_chat
from tests.upstream import NothingUnfamiliar

MIB = b" " * (1024 * 1024)


async def whole_body(mebibytes: int) -> AsyncIterator[bytes]:
    yield b'{"id": "c", "choices": [], "filler": "'
    for _ in range(mebibytes):
        yield MIB
    yield b'"}'


@pytest.mark.parametrize(
    ("mebibytes", "events", "stored"), [(1, [], 1), (17, ["chat_too_long_to_store"], 0)]
)
async def test_a_whole_answer_is_stored_or_the_log_says_that_it_is_too_long(
    caplog, mebibytes: int, events: list[str], stored: int
):
    remembered = []

    def remember(*what: object, complete: bool, size_bytes: int) -> None:
        remembered.append((*what, complete, size_bytes))

    async def exchange(_asked: object) -> Relayed:
        return Relayed(
            status=200,
            headers=((b"content-type", b"application/json"),),
            body=whole_body(mebibytes),
            close=lambda: None,
        )

    async def receive() -> None:
        await asyncio.Event().wait()  # the client stays

    async def send(_message: object) -> None:
        return

    scope = {"type": "http", "method": "POST", "path": "/chat/completions", "query_string": b"",
             "headers": [(b"content-type", b"application/json")]}  # fmt: skip
    services = SimpleNamespace(
        upstream=SimpleNamespace(exchange=exchange),
        unfamiliar=NothingUnfamiliar(),
        memory=SimpleNamespace(wants_relayed=lambda _body: True, remember_relayed=remember),
    )
    request = SimpleNamespace(
        body={"model": "far", "messages": []},
        raw_body=b"{}",
        request_id="req_1",
        caller=None,
        operation=SimpleNamespace(operation_id="createChatCompletion", tag="Chat"),
        http=HttpRequest(scope, receive),
    )

    with caplog.at_level(logging.WARNING):
        response = await relay_chat(services, request, to=Destination(model="far"))
        await response(scope, receive, send)

    assert len(remembered) == stored
    assert [record.getMessage() for record in caplog.records] == events
