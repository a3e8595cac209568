"""`/metrics` of upstreams, of the database's queue and of jobs."""

import asyncio
import re

from llm_backend.store import Database, Jobs, NewJob
from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message, Relay, post

CHAT = b'{"messages": [{"role": "user", "content": "Hi"}], "model": "m"}'
BROKEN = b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n"


async def told(served: Relay) -> dict[str, float]:
    """Every sample about upstreams, writes and jobs."""
    text = (await served.ask(METRICS)).body.decode()
    samples = re.findall(r"^llm_backend_((?:upstream|store_writes|jobs)\S*) (\S+)$", text, re.M)
    return {name: float(value) for name, value in samples if not name.endswith("_created")}


async def test_metrics_have_the_state_of_each_upstream(tmp_path):
    came, may_answer = asyncio.Event(), asyncio.Event()

    async def wait(_request: Message, connection: Connection) -> None:
        came.set()
        await may_answer.wait()
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    async with FakeUpstream(answer=wait) as slow, FakeUpstream(answer=BROKEN) as broken:
        backends = [backend(slow, "slow", "m"), backend(broken, "broken", "n")]
        async with gateway(tmp_path, backends=backends) as served:
            asking = asyncio.create_task(served.ask(post(CHAT)))
            for _ in range(3):
                await served.ask(post(CHAT.replace(b'"m"', b'"n"')))
            await came.wait()
            busy = await told(served)
            may_answer.set()
            await asking
            calm = await told(served)

    assert busy['upstream_outstanding{upstream="slow"}'] == 1
    assert calm['upstream_outstanding{upstream="slow"}'] == 0
    assert calm['upstream_up{upstream="slow"}'] == 1
    assert calm['upstream_up{upstream="broken"}'] == 0
    assert calm['upstream_failures_total{upstream="broken"}'] >= 3
    assert calm['upstream_outstanding{upstream="broken"}'] == 0


async def test_metrics_have_waiting_jobs_and_lag_by_kind(tmp_path):
    async with gateway(tmp_path) as served:
        async with Database.open(f"sqlite:///{tmp_path / 'llm-backend.sqlite3'}") as database:
            await Jobs(database).add(
                NewJob(kind="other", subject="1"), NewJob(kind="other", subject="2", delay_s=60)
            )
        seen = await told(served)

    assert seen['jobs{kind="other",state="waiting"}'] == 1
    assert seen['jobs{kind="other",state="later"}'] == 1
    assert 0 < seen['jobs_lag_seconds{kind="other"}'] < 30
    assert seen["store_writes_waiting"] == 0
