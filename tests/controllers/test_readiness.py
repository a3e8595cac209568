"""A server is ready if a model or an upstream can answer."""

import json

from llm_backend.app import App
from llm_backend.settings import load_settings
from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, Relay, post, serving

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


async def test_probes_of_a_server_that_stops_are_no_errors_in_the_log(tmp_path, capsys):
    given = {"models": (), "voice_program": "none", "allowed_hosts": ("relay",)}
    app = App(load_settings({"data_dir": tmp_path, **given}))
    async with app.open(), serving(app) as port:
        app.drain()
        answer = await Relay(port=port).ask(READY)

    levels = {line.split()[2]: line.split()[1] for line in capsys.readouterr().err.splitlines()}
    assert answer.status == 503
    assert (levels["request_refused"], levels["answered"]) == ("info", "info")
    assert "error" not in levels.values()
