"""Stored chats a second, by writers at once: what group commit brings.

    python benchmarks/store_writes.py                                # SQLite in a temporary folder
    python benchmarks/store_writes.py postgresql://localhost/scratch # and a server of yours

Every chat has four messages and one pair of metadata, and is durable before the next one of its
writer begins. The bodies are about 1.5 kB together.
"""

import argparse
import asyncio
import tempfile
import time
import uuid

from rich.console import Console
from rich.table import Table

from llm_backend.store import ChatStore, Database, StoredChat, migrate

MESSAGES = [{"role": "user", "content": "What is a keyset? " * 10}] * 4
RESPONSE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "A key. " * 70}}]}


async def main(urls: list[str], seconds: float) -> None:
    table = Table("database", "writers", "chats/s", "p50 ms", "p99 ms")
    for url in urls:
        async with Database.open(url) as database:
            await migrate(database)
            for writers in (1, 4, 16, 64):
                waits = sorted(await measure(ChatStore(database), writers, seconds))
                table.add_row(
                    url.partition(":")[0],
                    str(writers),
                    f"{len(waits) / seconds:,.0f}",
                    f"{waits[len(waits) // 2] * 1000:.2f}",
                    f"{waits[len(waits) * 99 // 100] * 1000:.2f}",
                )
    Console().print(table)


async def measure(chats: ChatStore, writers: int, seconds: float) -> list[float]:
    """Durations of storing a chat, by `writers` at once for `seconds`."""
    end = time.perf_counter() + seconds

    async def write() -> list[float]:
        waits = []
        while (begun := time.perf_counter()) < end:
            await chats.add(a_chat(), MESSAGES)
            waits.append(time.perf_counter() - begun)
        return waits

    return [
        wait for waits in await asyncio.gather(*(write() for _ in range(writers))) for wait in waits
    ]


def a_chat() -> StoredChat:
    return StoredChat(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created_at=int(time.time()),
        model="small",
        request={"model": "small", "temperature": 0.7, "stream": True},
        response=RESPONSE,
        metadata={"user": "benchmark"},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="*", help="databases beside SQLite; their tables are filled")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each number of writers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llm-backend-bench-") as folder:
        sqlite = f"sqlite:///{folder}/state.db"
        asyncio.run(main([sqlite, *arguments.urls], arguments.seconds))
