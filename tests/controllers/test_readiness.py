"""A server is ready if a model or an upstream can answer."""

import json

from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, post

DOWN = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
READY = b"GET /readyz HTTP/1.1\r\nhost: relay\r\n\r\n"


async def test_a_server_whose_upstreams_are_ejected_is_not_ready(tmp_path):
    async with (
        FakeUpstream(answer=DOWN) as fake,
        gateway(tmp_path, backends=[backend(fake, "a")]) as served,
    ):
        before = await served.ask(READY)
        for _ in range(3):
            await served.ask(post(CHAT))
        after = await served.ask(READY)

    assert (before.status, after.status) == (200, 503)
    assert "every upstream is out of service" in json.loads(after.body)["error"]["message"]


async def test_one_of_several_upstreams_is_enough(tmp_path):
    async with FakeUpstream(answer=DOWN) as a, FakeUpstream() as b:
        backends = [backend(a, "a", "m"), backend(b, "b", "n")]
        async with gateway(tmp_path, backends=backends) as served:
            for _ in range(3):
                await served.ask(post(CHAT))
            answer = await served.ask(READY)

    assert answer.status == 200
