"""Store of responses that run in the background: queues them, appends and reads their events."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from llm_backend.json_types import JsonMapping
from llm_backend.store.conversations.stored_conversation import StoredItem
from llm_backend.store.database.database import Database
from llm_backend.store.jobs import Job, Jobs
from llm_backend.store.responses import background_rows
from llm_backend.store.responses.stored_response import (
    BackgroundResponseState,
    Events,
    StoredResponse,
)
from llm_backend.store.text_checks import check_texts
from llm_backend.store.webhooks.stored_endpoint import DeliveryLimit

_EVENT_ROWS_PER_READ = 64


class BackgroundStore:
    """The background responses of a database. Events are durable before a client gets them, so
    every process sends the same events in the same order."""

    JOB = background_rows.JOB

    def __init__(
        self, database: Database, jobs: Jobs, *, limit: int, deliveries: DeliveryLimit
    ) -> None:
        self._database = database
        self._limit = limit  # maximum number of responses that have not ended
        self._deliveries = deliveries
        self._jobs = jobs

    async def add(self, response: StoredResponse, details: JsonMapping, new_events: Events) -> None:
        """Stores a queued response, and the job with these details that answers it. Raises
        `QueueFull`, and the errors of `ResponseStore.add`."""
        check_texts(response.id, response.model, *(item.id for item in response.input))
        add = partial(
            background_rows.add, response=response, details=details, new_events=new_events
        )
        await self._database.write(add, now=time.time(), limit=self._limit)
        self._jobs.wake()

    async def begin(self, job: Job) -> BackgroundResponseState | None:
        """Sets the response in progress, and returns its state. Returns None for one that has ended
        or was deleted."""
        return await self._database.write(background_rows.begin, job=job)

    async def append(self, job: Job, new_events: Events) -> None:
        """Appends events to the response. Raises `LeaseLost`, `Missing`."""
        await self._database.write(background_rows.append, job=job, new_events=new_events)

    async def finish(
        self, job: Job, body: JsonMapping, output: Sequence[StoredItem], new_events: Events
    ) -> None:
        """Ends the response and its job. Raises `LeaseLost`, and `Missing` if the response or its
        conversation was deleted."""
        finish = partial(
            background_rows.finish, job=job, body=body, output=output, new_events=new_events
        )
        limit = self._deliveries.waiting
        dropped = await self._database.write(finish, now=time.time(), delivery_limit=limit)
        self._deliveries.on_dropped(dropped)
        self._jobs.wake()  # for webhooks

    async def cancel(self, id: str, *, ending: Callable[[int], str]) -> JsonMapping:
        """Cancels a queued or running response and returns it; a response that has ended is
        returned unchanged. `ending` makes its last event from that event's number. Raises
        `Missing`."""
        cancel = partial(background_rows.cancel, id=id, ending=ending)
        limit = self._deliveries.waiting
        body, dropped = await self._database.write(cancel, now=time.time(), delivery_limit=limit)
        self._deliveries.on_dropped(dropped)
        self._jobs.wake()
        return body

    async def keep_output(self, id: str, output: Sequence[StoredItem]) -> None:
        """Stores the output that a response had produced before it was cancelled."""
        await self._database.write(background_rows.keep_output, id=id, output=output)

    async def delete(self, id: str) -> None:
        """Deletes a response, background or not, and stops its job. Raises `Missing`."""
        await self._database.write(background_rows.delete_response, id=id)
        self._jobs.wake()

    async def events(self, id: str, after: int) -> Events | None:
        """Returns the events after this number, perhaps none yet; None once no more can come.

        Raises `Missing`.
        """
        read = partial(background_rows.events, id=id, after=after, limit=_EVENT_ROWS_PER_READ)
        return await self._database.read(read)

    async def has_events(self, id: str) -> bool:
        """True if events of a response are stored. Raises `Missing`."""
        return await self._database.read(background_rows.has_events, id=id)
