"""Responses that are answered in the background: added, worked on, followed, cancelled."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from llm_backend.store import background_rows
from llm_backend.store.database import Database
from llm_backend.store.jobs import Job, Jobs
from llm_backend.store.stored_chat import Body, check_texts
from llm_backend.store.stored_response import Events, Standing, StoredItem, StoredResponse

__all__ = ["Background"]

_ROWS = 64  # of events, read at once


class Background:
    """The background responses of a database. Events are durable before anybody is told them, so
    that every process tells the same, in the same order, at any time."""

    JOB = background_rows.JOB

    def __init__(self, database: Database, jobs: Jobs, *, limit: int) -> None:
        self._database = database
        self._limit = limit  # of those that have not ended
        self._jobs = jobs

    async def add(self, response: StoredResponse, details: Body, told: Events) -> None:
        """Store a response that is to be answered, by a job with these details. Raises `QueueFull`
        and what `Responses.add` raises."""
        check_texts(response.id, response.model, *(item.id for item in response.input))
        add = partial(background_rows.add, response=response, details=details, told=told)
        await self._database.write(partial(add, now=time.time(), limit=self._limit))
        self._jobs.wake()

    async def begin(self, job: Job) -> Standing | None:
        """It is being answered. None for a response that has ended or is gone."""
        return await self._database.write(partial(background_rows.begin, job=job))

    async def append(self, job: Job, told: Events) -> None:
        """Something happened in it. Raises `LeaseLost`, `Missing`."""
        await self._database.write(partial(background_rows.append, job=job, told=told))

    async def finish(
        self, job: Job, body: Body, output: Sequence[StoredItem], told: Events
    ) -> None:
        """It has ended. Raises `LeaseLost`, and `Missing` if it or its conversation is gone."""
        await self._database.write(
            partial(background_rows.finish, job=job, body=body, output=output, told=told)
        )

    async def cancel(self, id: str, *, ending: Callable[[int], str]) -> Body:
        """End it, unless it has ended or is none of these; the response. What has been told of it
        ends with the line that `ending` makes of the next number. Raises `Missing`."""
        body = await self._database.write(partial(background_rows.cancel, id=id, ending=ending))
        self._jobs.wake()
        return body

    async def keep_output(self, id: str, output: Sequence[StoredItem]) -> None:
        """What a response that was cancelled had said."""
        await self._database.write(partial(background_rows.keep_output, id=id, output=output))

    async def delete(self, id: str) -> None:
        """Forget a response, of these or not, and stop answering it. Raises `Missing`."""
        await self._database.write(partial(background_rows.forget, id=id))
        self._jobs.wake()

    async def events(self, id: str, after: int) -> Events | None:
        """The next events behind this number, maybe none yet; None once there will be no more.

        Raises `Missing`.
        """
        return await self._database.read(
            partial(background_rows.events, id=id, after=after, limit=_ROWS)
        )

    async def tells(self, id: str) -> bool:
        """Whether events of a response are kept. Raises `Missing`."""
        return await self._database.read(partial(background_rows.tells, id=id))
