"""A program that writes the files of batches, and kills itself at a point that it is told:

python dying.py FOLDER in-the-output|between-the-files|before-the-end|after-the-end|after-forgetting
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from llm_backend.controllers.batches.batch_worker import BatchWorker
from llm_backend.settings import Settings
from llm_backend.store import (
    BATCH,
    BatchEnd,
    BatchStore,
    Blobs,
    Bucket,
    Database,
    DeliveryLimit,
    FileStore,
    Job,
    JobKind,
    Jobs,
)
from llm_backend.store.jobs import run_jobs

LINES = 40  # of the output, before it dies in it


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class MortalBatches(BatchStore):
    """Does what others do until the point comes."""

    point = ""

    async def lines(self, id: str, *, is_error: bool) -> AsyncIterator[tuple[int, str]]:
        if is_error and self.point == "between-the-files":
            die()
        number = 0
        async for line in super().lines(id, is_error=is_error):
            if number == LINES and self.point == "in-the-output":
                die()
            number += 1
            yield line

    async def end(self, job: Job, ended: BatchEnd) -> None:
        if self.point == "before-the-end":
            die()
        await super().end(job, ended)
        if self.point == "after-the-end":
            die()

    async def delete_lines(self, id: str) -> None:
        await super().delete_lines(id)
        die()


async def main(folder: Path, point: str) -> None:
    async with Database.open(f"sqlite:///{folder / 'state.db'}") as database:
        jobs = Jobs(database)
        batches = MortalBatches(database, jobs, deliveries=DeliveryLimit(waiting=1))
        batches.point = point
        files = FileStore(database, Blobs(database, Bucket((folder / "files").as_uri())))
        worker = BatchWorker(batches, files, Settings())
        async with run_jobs(jobs, [JobKind(name=BATCH, worker=worker, max_concurrency=1)]):
            await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
