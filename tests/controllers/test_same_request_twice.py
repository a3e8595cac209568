"""An idempotency key is known to all servers of one database."""

import json

from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, post

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
ANSWER = b'{"id":"chatcmpl-1","choices":[]}'


async def test_a_repeated_chat_at_another_server_is_answered_once(tmp_path):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_far\r\n"
    fake = FakeUpstream(answer=head + b"content-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
    key = b"idempotency-key: k\r\n"
    async with fake:
        shared = {"backends": [backend(fake, "a")], "processes": 2}
        async with gateway(tmp_path, **shared) as one, gateway(tmp_path, **shared) as two:
            first = await one.ask(post(CHAT, more=key))
            second = await two.ask(post(CHAT, more=key))
            refused = await two.ask(post(CHAT.replace(b"Hi", b"Ho"), more=key))

    assert first.body == second.body == ANSWER
    assert second.values(b"idempotent-replayed") == [b"true"]
    assert second.values(b"x-upstream-request-id") == [b"req_far"]
    assert len(fake.requests) == 1
    assert json.loads(refused.body)["error"]["code"] == "idempotency_key_reused"
