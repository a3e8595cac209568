"""A program that runs a work on copies of a folder, and is killed before each statement in turn:

python dying.py FOLDER complete|append|respond|ingest

`FOLDER/0` is the folder as it was before the first statement, and so on; the program prints the
number of these folders. In the last one the work is complete.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from sqlalchemy import Engine, event

from llm_backend.store import (
    Blobs,
    Bucket,
    ConversationStore,
    Database,
    Jobs,
    ResponseStore,
    StoredChunk,
    StoredItem,
    StoredResponse,
    UploadStore,
    VectorStores,
)
from llm_backend.store.vector_stores import INGEST

SAID = [StoredItem(id=f"item{n}", item={"id": f"item{n}"}) for n in range(3)]
CHUNKS = [StoredChunk(point_id=str(n), text=f"text {n}", repeated=0) for n in range(3)]


class Death:
    """Kills the process before the statement of this number, from 0, or before the end of a
    transaction."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._is_near = False
        event.listen(Engine, "before_cursor_execute", self._step)
        event.listen(Engine, "commit", self._step)

    def start_counting(self) -> None:
        """Counts statements from now on."""
        self._is_near = True

    def _step(self, *_: object) -> None:
        if not self._is_near:
            return
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


async def complete(folder: Path, database: Database, death: Death) -> None:
    uploads = UploadStore(database, Blobs(database, Bucket((folder / "files").as_uri())))
    death.start_counting()
    await uploads.complete("upload", ["part0", "part1"], file_id="file")


async def append(_: Path, database: Database, death: Death) -> None:
    death.start_counting()
    await ConversationStore(database).add_items("conv", SAID)


async def respond(_: Path, database: Database, death: Death) -> None:
    response = StoredResponse(
        id="resp", created_at=1, model="m", status="completed", body={"id": "resp"},
        input=SAID[:1], output=SAID[1:], conversation_id="conv",
    )  # fmt: skip
    death.start_counting()
    await ResponseStore(database).add(response)


async def ingest(_: Path, database: Database, death: Death) -> None:
    jobs = Jobs(database)
    (job,) = await jobs.claim(INGEST, 1)
    death.start_counting()
    await VectorStores(database, jobs).complete(job, CHUNKS, 7, {})


WORKS: dict[str, Callable[[Path, Database, Death], Awaitable[None]]] = {
    "complete": complete,
    "append": append,
    "respond": respond,
    "ingest": ingest,
}


async def main(folder: Path, work: str, at: int) -> None:
    async with Database.open(f"sqlite:///{folder / 'state.db'}") as database:
        await WORKS[work](folder, database, Death(at))


def is_killed(folder: Path, work: str, at: int) -> bool:
    """Runs the work in a process of its own; true if it was killed."""
    child = os.fork()
    if child == 0:
        asyncio.run(main(folder, work, at))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    given, work = Path(sys.argv[1]), sys.argv[2]
    for at in count():
        copy = shutil.copytree(given, given.with_name(f"{given.name}-{at}"))
        if not is_killed(copy, work, at):
            break
    sys.stdout.write(f"{at + 1}\n")
