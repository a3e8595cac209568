"""Cost of keys, limits and usage per request, in microseconds: everything is in memory.

python -m benchmarks.access_cost
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from starlette.requests import Request as HttpRequest

from llm_backend.access.authentication.key_admin import create_key
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.admission_control import AdmissionControl
from llm_backend.access.wiring import open_access
from llm_backend.contract.request import ApiRequest
from llm_backend.settings import Settings
from llm_backend.store import Database, migrate
from llm_backend.store.administration import Administration

KEYS = 1000
ROUNDS = 5
PLENTY = 1_000_000_000
LIMITS: dict[str, Any] = {
    "requests_per_minute": PLENTY,
    "tokens_per_minute": PLENTY,
    "key_requests_per_minute": PLENTY,
    "key_tokens_per_minute": PLENTY,
    "key_concurrent_requests": PLENTY,
    "project_concurrent_requests": PLENTY,
}
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
OPERATION: Any = SimpleNamespace(operation_id="createChatCompletion")


async def answer(_request: Any, send: Any) -> None:
    """The least that an answer can be: two messages."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def sink(_message: Any) -> None:
    """Discard every message."""


def chat_of(caller: Caller) -> ApiRequest:
    """A request, as far as the gate reads one."""
    return ApiRequest(
        operation=OPERATION,
        http=HttpRequest({"type": "http", "state": {}}),
        request_id="r",
        caller=caller,
        path={},
        query={},
        body={"model": "m"},
        raw_body=BODY,
    )


async def measure(requests: int, one: Callable[[], Awaitable[None]]) -> float:
    """Microseconds of processor time for one, the median of several rounds."""
    costs = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(requests):
            await one()
        costs.append((time.process_time() - began) / requests * 1e6)
    return median(costs)


async def run(requests: int, folder: Path) -> None:
    async with Database.open(f"sqlite:///{folder / 'state.db'}") as database:
        await migrate(database)
        administration = Administration(database)
        for number in range(KEYS - 1):
            await create_key(administration, f"key {number}")
        key = await create_key(administration, "the one")
        headers = {"authorization": f"Bearer {key.value}"}

        async def bare() -> None:
            await answer(None, sink)

        floor = await measure(requests, bare)
        for name, settings in (
            ("counted", Settings()),
            ("counted and limited", Settings(**LIMITS)),
            ("and in turn", Settings(**LIMITS, concurrent_requests=PLENTY)),
            ("and shared by a database", Settings(**LIMITS, processes=2)),
        ):
            async with open_access(settings, database, lambda _name: ()) as access:
                caller = partial(access.keyring.authenticate, headers)
                request = chat_of(caller())

                async def check(caller: Callable[[], Caller] = caller) -> None:
                    caller()

                async def through(
                    admission: AdmissionControl = access.admission, request: Any = request
                ) -> None:
                    await admission(request, answer, sink)

                if name == "counted":
                    print(f"key check, {KEYS} keys        {await measure(requests, check):6.2f} us")
                print(f"{name:28}{await measure(requests, through) - floor:6.2f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(given.requests, Path(folder)))


if __name__ == "__main__":
    main()
