"""Fields of tomorrow reach the upstream and are told, or are refused where that is asked for."""

import json

import pytest

from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, post

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
BODY = (
    b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"tomorrow":1,'
    b'"stream_options":{"\xc3\xa4,":1}}'
)


async def test_they_are_passed_on_and_named_in_a_header_and_counted(tmp_path):
    async with (
        FakeUpstream(answer=OK) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        answer = await served.ask(post(BODY))
        metrics = await served.ask(b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n")

    told = answer.values(b"x-llm-backend-unknown-fields")
    assert fake.requests[0].body == BODY
    assert told == [b"tomorrow, stream_options.??"]
    line = b'llm_backend_unknown_fields_total{operation="createChatCompletion"} 2.0'
    assert line in metrics.body


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", BODY), ("/v1/images/generations", b'{"prompt":"x","tomorrow":1}')],
)
async def test_a_strict_server_refuses_them(tmp_path, path: str, body: bytes):
    async with (
        FakeUpstream(answer=OK) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")], strict=True) as served,
    ):
        answer = await served.ask(post(body, path=path))

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["param"], error["code"]) == (400, "tomorrow", "unknown_parameter")
    assert fake.requests == []
