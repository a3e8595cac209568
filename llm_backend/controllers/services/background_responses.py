"""Background responses and their followers: clients in any process get each event as soon
as it is durable."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from llm_backend import errors, exact_json
from llm_backend.controllers.rendering.obfuscation import Obfuscation
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.response_items.stored_events import from_stored_event
from llm_backend.sse import encode
from llm_backend.store import (
    BackgroundResponseState,
    BackgroundStore,
    Events,
    Job,
    StoredItem,
    StoredResponse,
)

POLL_S = 0.2  # for events of a response that another process answers


class BackgroundResponses:
    """Stored background responses. Followers in the process that answers a response are notified
    immediately; followers in other processes poll."""

    def __init__(self, store: BackgroundStore) -> None:
        self._store = store
        self._listeners: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    async def add(
        self, response: StoredResponse, details: Mapping[str, Any], events: Events
    ) -> None:
        """Stores and queues a response."""
        with translate_store_errors(event="response_not_stored"):
            await self._store.add(response, details, events)

    async def begin(self, job: Job) -> BackgroundResponseState | None:
        """Marks a response as in progress. Returns None if it has ended or was deleted."""
        return await self._store.begin(job)

    async def append(self, job: Job, events: Events) -> None:
        """Stores events of a response. Raises `LeaseLost`, `Missing`."""
        await self._store.append(job, events)
        self._notify(job.subject)

    async def finish(
        self, job: Job, body: Mapping[str, Any], output: Sequence[StoredItem], events: Events
    ) -> None:
        """Stores the end of a response. Raises `LeaseLost`, `Missing`."""
        await self._store.finish(job, body, output, events)
        self._notify(job.subject)

    async def keep_output(self, id: str, output: Sequence[StoredItem]) -> None:
        """Stores the output that a cancelled response had so far."""
        await self._store.keep_output(id, output)

    async def cancel(self, id: str) -> Mapping[str, Any]:
        """Cancels a response that has not ended, and returns it. Its last event is an `error`: the
        document defines no event for cancellation. Raises `Missing`."""
        body = await self._store.cancel(id, ending=_cancelled_event)
        self._notify(id)
        return body

    async def delete(self, id: str) -> None:
        """Deletes a response. Raises `Missing`."""
        await self._store.delete(id)
        self._notify(id)

    async def has_events(self, id: str) -> bool:
        """True if the response's events can be replayed. Raises `Missing`."""
        return await self._store.has_events(id)

    def follow(
        self,
        id: str,
        after: int,
        obfuscation: Obfuscation | None = None,
        include: Sequence[str] = (),
    ) -> "ResponseFollower":
        """Returns a follower of the events after number `after`. It adds obfuscation, and the item
        fields that `include` selects, to the stored events."""
        return ResponseFollower(self, self._store, id, after, obfuscation, include)

    @contextmanager
    def change_event(self, id: str) -> Iterator[asyncio.Event]:
        """Yields an event that each change to the response in this process sets."""
        changed = asyncio.Event()
        self._listeners[id].add(changed)
        try:
            yield changed
        finally:
            self._listeners[id].discard(changed)
            if not self._listeners[id]:
                del self._listeners[id]

    def _notify(self, id: str) -> None:
        for changed in self._listeners.get(id, ()):
            changed.set()


class ResponseFollower:
    """One client's stream of a response, and the number of the last event sent."""

    def __init__(
        self,
        background: BackgroundResponses,
        store: BackgroundStore,
        id: str,
        after: int,
        obfuscation: Obfuscation | None,
        include: Sequence[str],
    ) -> None:
        self._background = background
        self._store = store
        self._id = id
        self._after = after
        self._obfuscation = obfuscation
        self._include = include

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yields the response's encoded events as they are stored, until it has ended."""
        with self._background.change_event(self._id) as changed:
            while True:
                changed.clear()
                with translate_store_errors("response"):
                    events = await self._store.events(self._id, self._after)
                if events is None:
                    return
                for line in events.lines:
                    yield self._encode(line)
                self._after = events.last_number
                if not events.lines:
                    await _wait_for_change(changed)

    def _encode(self, line: str) -> bytes:
        event = from_stored_event(exact_json.loads(line), self._include)
        if self._obfuscation is not None:
            event = self._obfuscation.with_event(event)
        return encode(exact_json.dumps(event), event["type"])

    def failure(self, error: errors.ApiError) -> bytes:
        """Returns the event that ends a broken stream. It has the next number if the response was
        deleted; otherwise the last one, so that a client that resumes after it misses no event."""
        number = self._after + isinstance(error, errors.NotFound)
        event = _error_event(max(number, 0), error.code, error.message, error.param)
        return encode(orjson.dumps(event), "error")


def _cancelled_event(number: int) -> str:
    message = "The response was cancelled."
    return orjson.dumps(_error_event(number, "cancelled", message, None)).decode()


def _error_event(
    number: int, code: str | None, message: str, param: str | None
) -> Mapping[str, Any]:
    return {
        "type": "error",
        "sequence_number": number,
        "code": code,
        "message": message,
        "param": param,
    }


async def _wait_for_change(changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(POLL_S):
            await changed.wait()
    except TimeoutError:
        return
