"""A program that claims jobs and runs them forever; to be killed."""

import asyncio
import sys

from llm_backend.store import Database, Job, JobKind, Jobs, run_jobs


class Worker:
    def __init__(self, number: int) -> None:
        self._missing = number

    async def work(self, job: Job) -> None:
        self._missing -= 1
        if not self._missing:
            sys.stdout.write("held\n")
            sys.stdout.flush()
        await asyncio.Event().wait()

    async def give_up(self, job: Job) -> None:
        raise NotImplementedError


async def main(url: str, number: int) -> None:
    async with Database.open(url) as database:
        kind = JobKind(name="k", worker=Worker(number), max_concurrency=number)
        async with run_jobs(Jobs(database), [kind]):
            await asyncio.Event().wait()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
