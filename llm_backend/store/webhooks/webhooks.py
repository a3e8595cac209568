"""Store of webhook endpoints and of the ends of their deliveries."""

import time
from collections.abc import Callable, Sequence

from llm_backend.store.database.database import Database
from llm_backend.store.jobs import Job, JobConcurrencyLimits, Jobs
from llm_backend.store.keyset_pages import Page, PageRequest
from llm_backend.store.tables.webhooks import webhook_endpoints
from llm_backend.store.text_checks import check_texts
from llm_backend.store.webhooks import delivery_rows, endpoint_rows
from llm_backend.store.webhooks.stored_endpoint import (
    EndpointChanges,
    FailedDelivery,
    StoredEndpoint,
    StoredFailure,
)

DELIVERY = delivery_rows.JOB  # kind of jobs


def delivery_limits(*, per_endpoint: int, per_project: int) -> JobConcurrencyLimits:
    """Returns the bounds of the concurrent deliveries."""
    return JobConcurrencyLimits(
        per_subject=per_endpoint, per_owner=per_project, subjects=webhook_endpoints
    )


class WebhookStore:
    """The webhook endpoints of a database; an owner has at most `limit`."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        *,
        limit: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._limit = limit
        self._clock = clock

    @property
    def now(self) -> float:
        """The time in unix seconds, by the clock of the store."""
        return self._clock()

    async def add(self, endpoint: StoredEndpoint) -> None:
        """Stores an endpoint. Raises `EndpointsFull`, `Unstorable`."""
        check_texts(endpoint.name, endpoint.url)
        await self._database.write(
            endpoint_rows.add, endpoint=endpoint, now=self._clock(), limit=self._limit
        )

    async def get(self, id: str) -> StoredEndpoint:
        """Returns the endpoint with this id. Raises `Missing`."""
        return await self._database.read(endpoint_rows.get, id=id)

    async def list(self, *, after: str | None, limit: int) -> Page[StoredEndpoint]:
        """Returns a page of the endpoints, the newest first. Raises `UnknownCursor`."""
        request = PageRequest(after=after, limit=limit, order="desc")
        return await self._database.read(endpoint_rows.find, request=request)

    async def change(self, id: str, changes: EndpointChanges) -> StoredEndpoint:
        """Changes the endpoint, and enables it if it is disabled. Raises `Missing`,
        `Unstorable`."""
        check_texts(*(text for text in (changes.name, changes.url) if text is not None))
        return await self._database.write(
            endpoint_rows.change, id=id, changes=changes, now=self._clock()
        )

    async def rotate(self, id: str, secret: str, *, keep_s: int) -> StoredEndpoint:
        """Replaces the secret of the endpoint; the present one holds for `keep_s` more. Raises
        `Missing`."""
        now = self._clock()
        until = int(now) + keep_s if keep_s else None
        return await self._database.write(
            endpoint_rows.rotate, id=id, secret=secret, previous_until=until, now=now
        )

    async def delete(self, id: str) -> None:
        """Deletes the endpoint, its deliveries and its failures. Raises `Missing`."""
        await self._database.write(endpoint_rows.delete, id=id)
        self._jobs.wake()

    async def failures(self, id: str) -> Sequence[StoredFailure]:
        """Returns the failures of an endpoint that are kept, the newest first. Raises `Missing`."""
        return await self._database.read(endpoint_rows.failures, id=id)

    async def finish(self, job: Job) -> None:
        """Ends a delivery that the endpoint has accepted. Raises `LeaseLost`."""
        await self._database.write(delivery_rows.finish, job=job, now=self._clock())

    async def postpone_others(self, job: Job, delay_s: float) -> None:
        """Postpones the other deliveries to an endpoint that fails, each once."""
        until = self._clock() + delay_s
        await self._database.write(delivery_rows.postpone_others, job=job, until=until)

    async def give_up(self, job: Job, failed: FailedDelivery) -> int | None:
        """Ends a failed delivery, and records it. If that disables the endpoint, drops the
        deliveries that wait for it and returns their number; else returns None. Raises
        `LeaseLost`."""
        return await self._database.write(
            delivery_rows.give_up, job=job, failed=failed, now=self._clock()
        )

    async def expire(self) -> None:
        """Erases previous secrets that are no longer valid, and failures of deleted endpoints."""
        await self._database.write(endpoint_rows.expire, now=int(self._clock()))
