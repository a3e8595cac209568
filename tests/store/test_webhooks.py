"""Webhook endpoints and their deliveries, added by the transactions that end work."""

import asyncio

import pytest

from llm_backend.store import (
    BATCH,
    DELIVERY,
    BackgroundStore,
    BatchStore,
    Database,
    DeliveryLimit,
    EndpointsFull,
    Events,
    FailedDelivery,
    Jobs,
    Missing,
    NewJob,
    Owner,
    QueueFull,
    StoredEndpoint,
    StoredResponse,
    WebhookStore,
    as_owner,
    delivery_limits,
)
from llm_backend.store.batches import batch_rows
from llm_backend.store.tables.batches import batches
from llm_backend.store.webhooks import delivery_rows
from tests.clock import Clock

TYPES = ["response.completed", "response.cancelled", "batch.failed"]


@pytest.fixture
def jobs(database: Database, clock: Clock) -> Jobs:
    return Jobs(database, clock=clock)


@pytest.fixture
def webhooks(database: Database, jobs: Jobs, clock: Clock) -> WebhookStore:
    return WebhookStore(database, jobs, limit=2, clock=clock)


def endpoint(id: str, *event_types: str) -> StoredEndpoint:
    return StoredEndpoint(
        id=id, created_at=1, name="n", url="https://example.org/", secret="whsec_",
        event_types=event_types or TYPES, updated_at=1,
    )  # fmt: skip


async def claimed(jobs: Jobs) -> list[tuple[str, str, str]]:
    """The deliveries that are due: endpoint, type, and the id of what ended."""
    found = await jobs.claim(DELIVERY, 10)
    events = [(job.subject, job.details["type"], job.details["data"]["id"]) for job in found]
    return sorted(events)


async def test_ended_response_is_delivered_to_endpoints_of_its_project_alone(
    database, jobs, webhooks, clock
):
    background = BackgroundStore(database, jobs, limit=2, deliveries=DeliveryLimit(waiting=2))
    for owner in ("proj_a", "proj_b"):
        with as_owner(Owner(id=owner)):
            await webhooks.add(endpoint(f"we_{owner}"))
    with as_owner(Owner(id="proj_a")):
        await webhooks.add(endpoint("we_batches", "batch.failed"))
        for id in ("resp_1", "resp_2"):
            await background.add(queued(id), {}, Events())
    clock.now = 2e9  # the store of responses has a clock of its own
    first, _ = await jobs.claim(BackgroundStore.JOB, 2)
    body = {"id": first.subject, "status": "completed", "output": []}
    await background.finish(first, body, [], Events())
    with as_owner(Owner(id="proj_a")):
        await background.cancel("resp_2", ending=lambda number: "")
        await background.cancel("resp_2", ending=lambda number: "")  # has ended: no event

    assert await claimed(jobs) == [
        ("we_proj_a", "response.cancelled", "resp_2"),
        ("we_proj_a", "response.completed", "resp_1"),
    ]


def queued(id: str) -> StoredResponse:
    return StoredResponse(
        id=id, created_at=1, model="m", status="queued", body={"id": id, "status": "queued"},
        input=[], output=[],
    )  # fmt: skip


async def test_delivery_is_undone_with_the_end_of_its_batch(database, jobs, webhooks, clock):
    await webhooks.add(endpoint("we_1"))
    await database.write(add_batch)
    await jobs.add(NewJob(kind=BATCH, subject="batch_1"))
    (job,) = await jobs.claim(BATCH, 1)

    def fail_and_crash(connection) -> None:
        batch_rows.fail(connection, job, [], now=clock.now, delivery_limit=2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail_and_crash)
    undone = await claimed(jobs)
    await database.write(
        lambda connection: batch_rows.fail(connection, job, [], now=clock.now, delivery_limit=2)
    )

    assert undone == []
    assert await claimed(jobs) == [("we_1", "batch.failed", "batch_1")]


def add_batch(connection) -> None:
    row = {
        "id": "batch_1", "created_at": 1, "endpoint": "/v1/responses", "input_file_id": "file",
        "completion_window": "24h", "status": "validating", "expires_at": 2, "times": {},
        "errors": [], "total": 0, "completed": 0, "failed": 0,
    }  # fmt: skip
    connection.execute(batches.insert(), row)


async def test_one_endpoint_gets_no_more_leases_than_its_share(database, jobs, webhooks, clock):
    await add_deliveries(database, webhooks, clock, {"we_slow": "proj_a", "we_other": "proj_b"})
    limits = delivery_limits(per_endpoint=2, per_project=9)
    first = await jobs.claim(DELIVERY, 9, limits=limits)
    second = await jobs.claim(DELIVERY, 9, limits=limits)
    await jobs.finish(first[0])
    third = await jobs.claim(DELIVERY, 9, limits=limits)
    clock.now += jobs.lease_s  # the leases expire

    assert [job.subject for job in first] == ["we_slow", "we_slow", "we_other", "we_other"]
    assert second == []
    assert [job.subject for job in third] == ["we_slow"]
    assert len(await jobs.claim(DELIVERY, 9, limits=limits)) == 4


async def test_one_project_gets_no_more_leases_than_its_share(database, jobs, webhooks, clock):
    owners = {"we_1": "proj_a", "we_2": "proj_a", "we_3": "proj_b"}
    await add_deliveries(database, webhooks, clock, owners)
    limits = delivery_limits(per_endpoint=2, per_project=3)
    first = await jobs.claim(DELIVERY, 9, limits=limits)
    second = await jobs.claim(DELIVERY, 9, limits=limits)
    await jobs.finish(first[0])
    third = await jobs.claim(DELIVERY, 9, limits=limits)

    assert [job.subject for job in first] == ["we_1", "we_1", "we_2", "we_3", "we_3"]
    assert second == []
    assert [job.subject for job in third] == ["we_1"]


async def add_deliveries(database, webhooks, clock, owners: dict[str, str]) -> None:
    """Three for each of these endpoints, one endpoint after the other."""
    for id, owner in owners.items():
        with as_owner(Owner(id=owner)):
            await webhooks.add(endpoint(id, f"batch.{id}"))
        for number in range(3):
            event = {"type": f"batch.{id}", "subject_id": f"batch_{number}"}
            await database.write(delivery_rows.add, **event, owner=owner, now=clock.now, limit=9)
        clock.now += 1


async def test_limits_hold_for_concurrent_requests(database, jobs, webhooks, clock):
    background = BackgroundStore(database, jobs, limit=2, deliveries=DeliveryLimit(waiting=2))
    event = {"type": "batch.failed", "owner": None, "now": clock.now, "limit": 2}

    endpoints = await asyncio.gather(
        *(webhooks.add(endpoint(f"we_{number}")) for number in range(12)), return_exceptions=True
    )
    responses = await asyncio.gather(
        *(background.add(queued(f"resp_{number}"), {}, Events()) for number in range(12)),
        return_exceptions=True,
    )
    dropped = await asyncio.gather(
        *(database.write(delivery_rows.add, subject_id=f"batch_{number}", **event)
          for number in range(12))
    )  # fmt: skip

    assert [type(one) for one in endpoints if one is not None] == [EndpointsFull] * 10
    assert [type(one) for one in responses if one is not None] == [QueueFull] * 10
    assert sum(dropped) == 2 * 10
    assert len(await claimed(jobs)) == 2 * 2


async def test_number_of_endpoints_is_bounded_for_each_project(webhooks):
    for owner in ("proj_a", "proj_b"):
        with as_owner(Owner(id=owner)):
            await webhooks.add(endpoint(f"{owner}_1"))
            await webhooks.add(endpoint(f"{owner}_2"))
            with pytest.raises(EndpointsFull):
                await webhooks.add(endpoint(f"{owner}_3"))


async def test_events_beyond_the_waiting_ones_are_recorded(database, jobs, webhooks, clock, caplog):
    await webhooks.add(endpoint("we_1"))
    for number in range(105):
        event = {"type": "batch.failed", "subject_id": f"batch_{number}"}
        await database.write(delivery_rows.add, **event, owner=None, now=clock.now, limit=2)
    failures = await webhooks.failures("we_1")

    assert [subject for *_, subject in await claimed(jobs)] == ["batch_0", "batch_1"]
    assert [one.subject_id for one in failures] == [f"batch_{n}" for n in range(104, 4, -1)]
    assert "2 deliveries" in failures[0].reason
    assert [record.message for record in caplog.records] == ["webhook_dropped"] * 103


async def test_number_of_dropped_events_is_reported(database, jobs, webhooks, clock):
    dropped: list[int] = []
    deliveries = DeliveryLimit(waiting=1, on_dropped=dropped.append)
    background = BackgroundStore(database, jobs, limit=2, deliveries=deliveries)
    await webhooks.add(endpoint("we_1"))
    for id in ("resp_1", "resp_2"):
        await background.add(queued(id), {}, Events())
    clock.now = 2e9  # the store of responses has a clock of its own
    first, _ = await jobs.claim(BackgroundStore.JOB, 2)
    body = {"id": first.subject, "status": "completed", "output": []}
    await background.finish(first, body, [], Events())
    await background.cancel("resp_2", ending=lambda number: "")
    await database.write(add_batch)
    await jobs.add(NewJob(kind=BATCH, subject="batch_1"))
    (job,) = await jobs.claim(BATCH, 1)
    await BatchStore(database, jobs, deliveries=deliveries, clock=clock).fail(job, [])

    assert dropped == [0, 1, 1]


async def test_waiting_deliveries_are_postponed_once_and_dropped_at_the_end(
    database, jobs, webhooks, clock
):
    await webhooks.add(endpoint("we_1"))
    clock.now += 1.5
    for number in range(3):
        event = {"type": "batch.failed", "subject_id": f"batch_{number}"}
        await database.write(delivery_rows.add, **event, owner=None, now=clock.now, limit=9)
    (job,) = await jobs.claim(DELIVERY, 1)
    await webhooks.postpone_others(job, 5)
    early = await claimed(jobs)
    clock.now += 5
    await webhooks.postpone_others(job, 5)
    (held,) = await jobs.claim(DELIVERY, 1)
    failed = FailedDelivery(attempts=1, status_code=500, reason="It failed.")
    dropped = await webhooks.give_up(job, failed)
    await jobs.finish(held)  # has a lease: is not dropped

    assert (early, dropped, await jobs.backlog()) == ([], 1, [])
    (failure,) = await webhooks.failures("we_1")
    assert failure.reason == "It failed. Waiting events dropped with this one: 1."


async def test_deleted_endpoint_takes_its_deliveries_along(database, jobs, webhooks, clock):
    await webhooks.add(endpoint("we_1"))
    event = {"type": "batch.failed", "subject_id": "batch_1"}
    await database.write(delivery_rows.add, **event, owner=None, now=clock.now, limit=2)
    with as_owner(Owner(id="proj_other")), pytest.raises(Missing):
        await webhooks.delete("we_1")
    await webhooks.delete("we_1")

    assert await claimed(jobs) == []
    with pytest.raises(Missing):
        await webhooks.failures("we_1")
