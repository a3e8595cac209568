"""Page 1 against page 1,000 of 100,000 stored chats: a page costs the same wherever it is.

    python benchmarks/store_pagination.py                                # SQLite
    python benchmarks/store_pagination.py postgresql://localhost/scratch # and a server of yours

Fills the database first, which takes about a minute; then times pages of 100 in both orders,
unfiltered, by model and by metadata, each as the median of interleaved rounds.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy import Connection, insert, text

from llm_backend.store import ChatStore, Database, migrate, tables

CHATS = 100_000
PAGE = 100
ROUNDS = 30
BULK = 2_000
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "model": {"model": "small"},
    "metadata": {"metadata": {"user": "ann"}},
    "model and metadata": {"model": "small", "metadata": {"user": "ann", "kind": "test"}},
}


async def main(urls: list[str], chats: int) -> None:
    table = Table("database", "filter", "order", "page 1 ms", f"page {chats // PAGE:,} ms", "ratio")
    for url in urls:
        kind = url.partition(":")[0]
        async with Database.open(url) as database:
            await migrate(database)
            await fill(database, chats, f"{kind}: storing {chats:,} chats")
            for name, filters in FILTERS.items():
                for order in ("asc", "desc"):
                    first, last = await measure_pages(database, chats, order, filters)
                    times = (f"{first * 1000:.2f}", f"{last * 1000:.2f}", f"{last / first:.2f}")
                    table.add_row(kind, name, order, *times)
    Console().print(table)


async def fill(database: Database, chats: int, what: str) -> None:
    """Every chat matches every filter, so that each list has all the pages."""
    for start in track(range(0, chats, BULK), description=what):
        numbers = range(start, min(start + BULK, chats))
        await database.write(partial(store, numbers=numbers))
    await database.write(lambda connection: connection.execute(text("ANALYZE")))


def store(connection: Connection, numbers: range) -> None:
    rows = [
        {
            "seq": number + 1,
            "id": id_of(number),
            "created_at": 1_700_000_000 + number // 5,
            "model": "small",
            "status": "completed",
            "request": {"model": "small"},
            "response": {"choices": [{"message": {"role": "assistant", "content": "x" * 300}}]},
        }
        for number in numbers
    ]
    connection.execute(insert(tables.chats.chats), rows)
    pairs = [
        {"chat_seq": row["seq"], "created_at": row["created_at"], "key": key, "value": value}
        for row in rows
        for key, value in (("user", "ann"), ("kind", "test"))
    ]
    connection.execute(insert(tables.chats.chat_metadata), pairs)


async def measure_pages(
    database: Database, chats: int, order: Any, filters: dict[str, Any]
) -> tuple[float, float]:
    """Seconds for the first and for the last page: medians, taken in turns."""
    before_last = chats - PAGE - 1 if order == "asc" else PAGE
    took: dict[str | None, list[float]] = {None: [], id_of(before_last): []}
    for _ in range(ROUNDS):
        for after, times in took.items():
            begun = time.perf_counter()
            page = await ChatStore(database).list(after=after, limit=PAGE, order=order, **filters)
            times.append(time.perf_counter() - begun)
            assert len(page.items) == PAGE
    first, last = map(statistics.median, took.values())
    return first, last


def id_of(number: int) -> str:
    return f"chatcmpl-{number:06}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("urls", nargs="*", help="empty databases beside SQLite")
    parser.add_argument("--chats", type=int, default=CHATS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llm-backend-bench-") as folder:
        asyncio.run(main([f"sqlite:///{folder}/state.db", *arguments.urls], arguments.chats))
