"""A relayed chat is remembered; what cannot be is said in the log."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from starlette.requests import Request as HttpRequest

from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.controllers.relay.relay import Destination
from llm_backend.controllers.relay.relayed_chat import relay_chat
from llm_backend.controllers.services.chat_recorder import RelayedAnswer
from tests.upstream import NothingUnfamiliar

MIB = b" " * (1024 * 1024)


async def whole_body(mebibytes: int) -> AsyncIterator[bytes]:
    yield b'{"id": "c", "choices": [], "filler": "'
    for _ in range(mebibytes):
        yield MIB
    yield b'"}'


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for one in given:
        yield one


async def relayed(body: AsyncIterator[bytes]) -> tuple[list[tuple], bytes]:
    """Stored completion of a relayed chat, and the bytes that its client gets."""
    remembered: list[tuple] = []
    sent = bytearray()

    def store(body: dict, answer: RelayedAnswer, *, size_bytes: int) -> None:
        if (completion := answer.completion()) is not None:
            remembered.append((body, completion, answer.is_complete, size_bytes))

    async def exchange(_asked: object) -> UpstreamAnswer:
        headers = ((b"content-type", b"application/json"),)
        return UpstreamAnswer(status=200, headers=headers, body=body, close=lambda: None)

    async def receive() -> None:
        await asyncio.Event().wait()  # the client stays

    async def send(message: dict) -> None:
        sent.extend(message.get("body", b""))

    scope = {"type": "http", "method": "POST", "path": "/chat/completions", "query_string": b"",
             "headers": [(b"content-type", b"application/json")]}  # fmt: skip
    services = SimpleNamespace(
        upstreams=SimpleNamespace(exchange=exchange),
        unknown_fields=NothingUnfamiliar(),
        chat_recorder=SimpleNamespace(should_store_relayed=lambda _body: True, store_relayed=store),
    )
    request = SimpleNamespace(
        body={"model": "far", "messages": []},
        raw_body=b"{}",
        request_id="req_1",
        caller=None,
        meter=None,
        operation=SimpleNamespace(operation_id="createChatCompletion", tag="Chat"),
        http=HttpRequest(scope, receive),
    )
    response = await relay_chat(services, request, to=Destination(model="far"))
    await response(scope, receive, send)
    return remembered, bytes(sent)


@pytest.mark.parametrize(
    ("mebibytes", "events", "stored"), [(1, [], 1), (17, ["chat_too_long_to_store"], 0)]
)
async def test_a_relayed_completion_is_stored_or_logged_as_too_long(
    caplog, mebibytes: int, events: list[str], stored: int
):
    with caplog.at_level(logging.WARNING):
        remembered, _ = await relayed(whole_body(mebibytes))

    assert len(remembered) == stored
    assert [record.getMessage() for record in caplog.records] == events


@pytest.mark.parametrize("wrong", [None, 7, "", [], True, 1e30, 10**30])
async def test_invalid_ids_of_a_relayed_completion_are_replaced(wrong: object):
    said = {"id": wrong, "model": wrong or None, "created": wrong, "choices": []}
    ((_, kept, *_),), _ = await relayed(pieces(json.dumps(said).encode()))

    assert kept["id"].startswith("chatcmpl-")
    assert kept["model"] == "far"
    assert 0 <= kept["created"] < 1 << 40


@pytest.mark.parametrize("choices", [[1], [None], [{"message": "Hi"}], [{"message": [1]}]])
async def test_a_body_that_is_no_completion_is_relayed_and_not_stored(choices: list):
    answer = json.dumps({"id": "c", "choices": choices}).encode()

    assert await relayed(pieces(answer)) == ([], answer)
