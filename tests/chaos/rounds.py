"""Rounds: operations, kills at random moments, and then everything that was promised."""

import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from llm_backend.json_types import JsonObject
from tests.chaos.asking import LOCAL, RELAYED
from tests.chaos.facts import Facts, Violation
from tests.chaos.far import Far
from tests.chaos.media import PAINTER, WHISPER
from tests.chaos.mix import Mix
from tests.chaos.texts import RANKS
from tests.chaos.tree import Process, Tree
from tests.engine.gguf_models import write_bert
from tests.voice import PROGRAM
from tests.whisper_models import can_transcribe, write_whisper

__all__ = ["Rounds"]

KEY = "sk-of-the-operator"
ENDED_S = 300.0  # in which all work that outlives its request has ended, at the end
CLIENTS = 6
EVENTS = {
    "response": ("completed", "failed", "cancelled", "incomplete"),
    "batch": ("completed", "failed", "cancelled", "expired"),
}
CHECKED_A_ROUND = 20  # of each kind; at the end it is all


@dataclass(kw_only=True)
class Rounds:
    """One server and one database under fire. `figures` are what is told at the end."""

    folder: Path
    far: Far
    far_port: int
    embedder: Path
    database_url: str | None
    draw: random.Random
    round_s: float
    back_s: float = 90.0  # in which the server answers again, on a machine that is busy
    killed: Counter[str] = field(default_factory=Counter)
    backs_s: list[float] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yaml"
        host = f"127.0.0.1:{self.far_port}"
        far = {"name": "far", "base_url": f"http://{host}/v1", "models": [RELAYED], "api_key": "k"}
        painter = {"name": "painter", "kind": "sdapi", "base_url": f"http://{host}",
                   "models": [PAINTER]}  # fmt: skip
        config.write_text(json.dumps({"backends": [far, painter]}))  # which is YAML
        environment = {
            "LLM_BACKEND_API_KEYS": KEY,
            "LLM_BACKEND_JOB_LEASE_S": "3",
            "LLM_BACKEND_MCP_API": "true",
            "LLM_BACKEND_MODERATION_MODEL": LOCAL,
            "LLM_BACKEND_WEBHOOK_HOSTS": host,
            "LLM_BACKEND_VOICE_PROGRAM": PROGRAM,
        }
        if self.database_url is not None:
            environment["DATABASE_URL"] = self.database_url
        ranks = write_bert(self.folder / f"{RANKS}.gguf", pooling=None, labels=1)
        models = [LOCAL, str(self.embedder), str(ranks)]
        if can_transcribe():
            models.append(str(write_whisper(self.folder / f"{WHISPER}.bin")))
        flags = [*(flag for model in models for flag in ("--model", model)), "--config",
                 str(config), "--threads", "1", "--log-level", "info"]  # fmt: skip
        self.tree = Tree(folder=self.folder, environment=environment, flags=flags)
        self.processes = 1

    async def run(self, rounds: int) -> None:
        """Run `rounds`, and check the state at the end. Raises `Violation`, `AssertionError`."""
        try:
            async with self._client() as client:
                address = self.tree.address
                mix = self.mix = Mix(client, address, self.facts, self.draw)
                await self._start(client)
                await self._prepare(client)
                for number in range(rounds):
                    await self._round(client, mix)
                    if number % 5 == 4:
                        await self._restart(client)
                await self._finish(client)
        finally:
            self.tree.end()

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{self.tree.address}/v1",
            headers={"authorization": f"Bearer {KEY}"},
            timeout=httpx.Timeout(60),
        )

    async def _prepare(self, client: httpx.AsyncClient) -> None:
        """An endpoint of webhooks, and a key whose requests are counted."""
        url = f"http://127.0.0.1:{self.far_port}/events"
        types = [f"{kind}.{end}" for kind, ends in EVENTS.items() for end in ends]
        body = {"name": "all", "url": url, "event_types": types}
        self.far.secret = (await _made(client, "/webhook_endpoints", body))["signing_secret"]
        accounts = "/organization/projects/proj_default/service_accounts"
        key = (await _made(client, accounts, {"name": "counted"}))["api_key"]
        self.facts.counted_key, self.facts.counted_key_id = key["value"], key["id"]

    async def _round(self, client: httpx.AsyncClient, mix: Mix) -> None:
        until_s = time.monotonic() + self.round_s
        working = [asyncio.create_task(_work(mix, until_s)) for _ in range(CLIENTS)]
        try:
            for _ in range(self.draw.choice([1, 1, 2, 3])):
                await asyncio.sleep(self.draw.uniform(0, self.round_s / 2))
                await self._kill()
            await asyncio.gather(*working)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
        await self._back(client)
        if mix.wrong:
            raise Violation(f"answers that are none: {dict(mix.wrong)}")
        await self.facts.check(client, most=CHECKED_A_ROUND)
        await self.facts.check_ended(client, vectors=self.processes == 1)

    async def _kill(self) -> None:
        """One process of a kind that is drawn, as soon as there is one; else any. Those that read
        files live for a moment only, and are waited for."""
        kinds = {one.kind for one in self.tree.processes()} | {"reader"}
        kind = self.draw.choice(sorted(kinds))
        deadline = time.monotonic() + self.round_s / 3
        while time.monotonic() < deadline and self.tree.is_alive:
            if those := [one for one in self.tree.processes() if one.kind == kind]:
                await self._kill_one(self.draw.choice(those))
                return
            await asyncio.sleep(0.01)
        if self.tree.is_alive and (any_of_them := self.tree.processes()):
            await self._kill_one(self.draw.choice(any_of_them))

    async def _kill_one(self, process: Process) -> None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
            self.killed[process.kind] += 1
            self.facts.deaths += 1
        if process.kind == "parent":
            await asyncio.to_thread(self.tree.wait_ended)  # a moment later than it is killed

    async def _back(self, client: httpx.AsyncClient) -> None:
        """Returns when the server answers again. Raises `Violation` where it does not in time."""
        began_s = time.monotonic()
        if not self.tree.is_alive:
            await asyncio.to_thread(self.tree.wait_gone)
            await self._start(client)
        else:
            await self._ready(client)
        self.backs_s.append(time.monotonic() - began_s)

    async def _restart(self, client: httpx.AsyncClient, processes: int | None = None) -> None:
        await asyncio.to_thread(self.tree.stop)
        await self._start(client, processes)

    async def _start(self, client: httpx.AsyncClient, processes: int | None = None) -> None:
        self.processes = processes or self.draw.choice([1, 2])
        self.tree.start(self.processes)
        await self._ready(client)

    async def _ready(self, client: httpx.AsyncClient) -> None:
        deadline = time.monotonic() + self.back_s
        hi = [{"role": "user", "content": "Hi"}]
        body = {"model": LOCAL, "messages": hi, "max_tokens": 1, "store": False}
        while time.monotonic() < deadline:
            if not self.tree.is_alive:
                raise Violation(f"the server ended by itself: {self._last_lines()}")
            with suppress(httpx.TransportError):
                ready = await client.get(f"{self.tree.address}/readyz")
                if ready.status_code == 200:
                    answer = await client.post("/chat/completions", json=body)
                    if answer.status_code == 200:
                        return
            await asyncio.sleep(0.05)
        raise Violation(
            f"the server does not answer {self.back_s:g} s after a kill: {self._last_lines()}"
        )

    async def _finish(self, client: httpx.AsyncClient) -> None:
        """All work ends, nothing is half there, and nothing is left of the processes."""
        await self._restart(client, processes=1)
        await self.facts.check_usage(client)
        deadline = time.monotonic() + ENDED_S
        await self.facts.check_lists(client)
        while left := await self.facts.check_ended(client, vectors=True):
            if time.monotonic() > deadline:
                raise Violation(f"not ended after {ENDED_S:g} s: {left}")
            await asyncio.sleep(0.5)
        await self.facts.check(client)
        await self._check_events(deadline)
        await asyncio.to_thread(self.tree.stop)
        if scratch := sorted(path.name for path in (self.folder / "tmp").iterdir()):
            raise Violation(f"left in the folder of temporary files: {scratch}")
        holders = self.folder / "data" / "state.db-holders"
        if holders.exists() and (left_over := sorted(path.name for path in holders.iterdir())):
            raise Violation(f"left in {holders.name}: {left_over}")

    async def _check_events(self, deadline_s: float) -> None:
        """Each end of a response or a batch is delivered, by one event only. Raises `Violation`."""
        while missing := self.facts.due - set(self._delivered()):
            if time.monotonic() > deadline_s:
                raise Violation(f"events never delivered: {missing}")
            await asyncio.sleep(0.5)
        objects = Counter(id for _, id in self._delivered())
        if twice := [id for id, number in objects.items() if number > 1]:
            raise Violation(f"ends delivered by several events: {twice}")
        if self.far.wrong:
            raise Violation(f"wrong events: {self.far.wrong}")

    def _delivered(self) -> list[tuple[str, str]]:
        events = [json.loads(body) for body in self.far.events.values()]
        return [(event["type"], event["data"]["id"]) for event in events]

    def _last_lines(self) -> str:
        return "\n".join(self.tree.log.read_text(errors="replace").splitlines()[-20:])

    def figures(self) -> str:
        """Numbers of operations, kills and checks."""
        slowest = max(self.backs_s, default=0.0)
        return "\n".join([
            f"starts {self.tree.starts}, killed {dict(self.killed)}, "
            f"slowest to be back {slowest:.1f} s",
            f"done {dict(self.mix.done)}",
            f"refused {dict(self.mix.refused.most_common(12))}",
            f"checked {dict(self.facts.checked)}",
            f"ended {dict(self.facts.ended)}",
            f"events {len(self.far.events)}, delivered {self.far.deliveries} times",
            f"tracebacks {self.tree.log.read_text(errors='replace').count('Traceback')}",
        ])  # fmt: skip


async def _made(client: httpx.AsyncClient, path: str, body: JsonObject) -> JsonObject:
    answer = await client.post(path, json=body)
    answer.raise_for_status()
    made: JsonObject = answer.json()
    return made


async def _work(mix: Mix, until_s: float) -> None:
    while time.monotonic() < until_s:
        await mix.one()
        await asyncio.sleep(0.01)
