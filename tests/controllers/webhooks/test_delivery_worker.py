"""Deliveries over real HTTP, checked by the official SDK, with a clock that tests move."""

import json
import logging
import time
from email.utils import formatdate

import pytest
from openai import InvalidWebhookSignatureError

from llm_backend.backends.webhook_sender import WebhookSender
from llm_backend.controllers.webhooks.delivery_worker import (
    JITTER,
    LIFETIME_S,
    PAUSES_S,
    DeliveryWorker,
)
from llm_backend.controllers.webhooks.signature import new_secret
from llm_backend.metrics import Metrics
from llm_backend.store import (
    DELIVERY,
    Database,
    EndpointChanges,
    FailedDelivery,
    Jobs,
    RetryLater,
    StoredEndpoint,
    WebhookStore,
    migrate,
)
from llm_backend.store.webhooks import delivery_rows
from tests.clock import Clock
from tests.webhook_receiver import receiving


class Deliveries:
    """One process on the database, whose jobs run when a test says so."""

    def __init__(self, database: Database, hosts: tuple[str, ...], *, timeout_s: float) -> None:
        self.database, self.clock, self.metrics = database, Clock(time.time()), Metrics()
        self.jobs = Jobs(database, clock=self.clock)
        self.webhooks = WebhookStore(database, self.jobs, limit=5, clock=self.clock)
        sender, self.drawn = WebhookSender(hosts, timeout_s=timeout_s), 0.0
        self.worker = DeliveryWorker(
            self.webhooks, sender, self.metrics.webhook_deliveries, random_share=lambda: self.drawn
        )

    async def add_endpoint(self, url: str, **fields) -> StoredEndpoint:
        endpoint = StoredEndpoint(
            **{"id": "we_1", "created_at": 1, "name": "n", "url": url, "secret": new_secret(),
               "event_types": ["batch.completed"], "updated_at": 1} | fields,
        )  # fmt: skip
        await self.webhooks.add(endpoint)
        self.clock.now += 1
        return endpoint

    async def end_batch(self, id: str = "batch_1") -> None:
        add = {"owner": None, "now": self.clock.now, "limit": 9}
        await self.database.write(delivery_rows.add, type="batch.completed", subject_id=id, **add)

    async def attempt(self) -> float | None:
        """Runs the delivery that is due first, as the job runner does; returns its pause."""
        (job,) = await self.jobs.claim(DELIVERY, 1)
        try:
            await self.worker.work(job)
        except RetryLater as later:
            await self.jobs.release(job, delay_s=later.delay_s, counts=True)
            return later.delay_s
        return None

    async def number_waiting(self) -> int:
        return sum(one.due + one.later for one in await self.jobs.backlog())

    def counted(self, outcome: str) -> float:
        return self.metrics.webhook_deliveries.labels(outcome)._value.get()


@pytest.fixture
async def database(tmp_path):
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield database


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def deliveries(database, receiver):
    return Deliveries(database, (receiver.host,), timeout_s=30)


async def test_event_is_unwrapped_by_the_sdk(deliveries, receiver):
    endpoint = await deliveries.add_endpoint(receiver.url)
    await deliveries.end_batch("batch_1")

    assert await deliveries.attempt() is None
    received = receiver.next()
    event = received.unwrap(endpoint.secret)
    assert (event.type, event.data.id, event.object) == ("batch.completed", "batch_1", "event")
    assert set(json.loads(received.body)) == {"id", "object", "type", "created_at", "data"}
    with pytest.raises(InvalidWebhookSignatureError):
        received.unwrap(new_secret())
    assert (await deliveries.number_waiting(), deliveries.counted("delivered")) == (0, 1)


@pytest.mark.parametrize("status", [302, 404, 503])
async def test_failed_event_is_sent_again_with_the_same_id(deliveries, receiver, status):
    endpoint = await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [status]
    await deliveries.end_batch()
    pause_s = await deliveries.attempt()
    deliveries.clock.now += pause_s - 1
    early = await deliveries.jobs.claim(DELIVERY, 1)
    deliveries.clock.now += 1

    assert (pause_s, early) == (PAUSES_S[0], [])
    assert await deliveries.attempt() is None
    first, second = receiver.next(), receiver.next()
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    second.verify(endpoint.secret)
    assert receiver.received.empty()


async def test_endpoint_that_fails_for_a_day_is_disabled_until_it_is_changed(
    deliveries, receiver, caplog
):
    caplog.set_level(logging.DEBUG)
    endpoint = await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [500] * 12
    await deliveries.end_batch("batch_1")
    began_at, pauses = deliveries.clock.now, []
    while (pause_s := await deliveries.attempt()) is not None:
        pauses.append(pause_s)
        deliveries.clock.now += pause_s
    took_s = deliveries.clock.now - began_at
    await deliveries.end_batch("batch_2")  # is for no endpoint
    (failure,) = await deliveries.webhooks.failures(endpoint.id)
    disabled = await deliveries.webhooks.get(endpoint.id)

    assert pauses[:-1] == [*PAUSES_S]
    assert LIFETIME_S - 1 < took_s <= LIFETIME_S
    assert (failure.subject_id, failure.attempts, failure.status_code) == ("batch_1", 12, 500)
    assert failure.is_disabling
    assert disabled.disabled_at == int(deliveries.clock.now)
    assert await deliveries.number_waiting() == 0
    assert (deliveries.counted("retried"), deliveries.counted("given_up")) == (11, 1)
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "webhook_endpoint_disabled" in logged
    assert "confidential" not in logged
    assert endpoint.secret not in logged

    await deliveries.webhooks.change(endpoint.id, EndpointChanges())
    await deliveries.end_batch("batch_3")
    assert await deliveries.attempt() is None
    assert deliveries.counted("delivered") == 1


async def test_endpoint_that_is_gone_is_disabled_at_once(deliveries, receiver):
    endpoint = await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [410]
    for number in range(3):
        await deliveries.end_batch(f"batch_{number}")

    assert await deliveries.attempt() is None
    (failure,) = await deliveries.webhooks.failures(endpoint.id)
    assert (failure.status_code, failure.attempts, failure.is_disabling) == (410, 1, True)
    assert (await deliveries.webhooks.get(endpoint.id)).disabled_at == int(deliveries.clock.now)
    assert (await deliveries.number_waiting(), deliveries.counted("given_up")) == (0, 3)


async def test_endpoint_that_was_changed_since_it_was_gone_stays_enabled(deliveries, receiver):
    endpoint = await deliveries.add_endpoint(receiver.url)
    await deliveries.end_batch()
    (job,) = await deliveries.jobs.claim(DELIVERY, 1)
    asked_at = deliveries.clock.now
    deliveries.clock.now += 0.5
    await deliveries.webhooks.change(endpoint.id, EndpointChanges(url="https://example.org/"))
    gone = FailedDelivery(attempts=1, status_code=410, reason="It is gone.", gone_at=asked_at)

    assert await deliveries.webhooks.give_up(job, gone) is None
    assert (await deliveries.webhooks.get(endpoint.id)).disabled_at is None


@pytest.mark.parametrize(
    ("retry_after", "pause_s"),
    [("90", 90), ("1", PAUSES_S[0]), ("soon", PAUSES_S[0]), ("9" * 400, LIFETIME_S)],
)
async def test_failing_endpoint_sets_the_time_of_the_retry(
    deliveries, receiver, retry_after, pause_s
):
    await deliveries.add_endpoint(receiver.url)
    deliveries.clock.now = float(int(deliveries.clock.now))
    receiver.statuses, receiver.retry_after = [503], retry_after
    await deliveries.end_batch("batch_1")
    await deliveries.end_batch("batch_2")

    assert await deliveries.attempt() == pause_s
    deliveries.clock.now += pause_s - 1
    assert await deliveries.jobs.claim(DELIVERY, 2) == []
    deliveries.clock.now += 1
    assert len(await deliveries.jobs.claim(DELIVERY, 2)) == 2


async def test_endpoint_may_name_a_date(deliveries, receiver):
    await deliveries.add_endpoint(receiver.url)
    deliveries.clock.now = float(int(deliveries.clock.now))
    receiver.statuses = [429]
    receiver.retry_after = formatdate(deliveries.clock.now + 100, usegmt=True)
    await deliveries.end_batch()

    assert await deliveries.attempt() == 100


async def test_pauses_are_longer_by_chance(deliveries, receiver):
    await deliveries.add_endpoint(receiver.url)
    receiver.statuses, deliveries.drawn = [500], 0.5
    await deliveries.end_batch()

    assert await deliveries.attempt() == PAUSES_S[0] * (1 + JITTER / 2)


async def test_endpoint_that_accepts_other_events_stays_enabled(deliveries, receiver):
    endpoint = await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [500]
    await deliveries.end_batch("batch_1")
    pause_s = await deliveries.attempt()
    deliveries.clock.now += pause_s
    await deliveries.end_batch("batch_2")
    jobs = {job.details["data"]["id"]: job for job in await deliveries.jobs.claim(DELIVERY, 2)}
    await deliveries.worker.work(jobs["batch_2"])
    deliveries.clock.now += LIFETIME_S
    receiver.statuses = [500]
    await deliveries.worker.work(jobs["batch_1"])

    (failure,) = await deliveries.webhooks.failures(endpoint.id)
    assert (failure.subject_id, failure.is_disabling) == ("batch_1", False)
    assert (await deliveries.webhooks.get(endpoint.id)).disabled_at is None


async def test_other_events_of_a_failing_endpoint_wait_with_the_first(deliveries, receiver):
    await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [500]
    await deliveries.end_batch("batch_1")
    await deliveries.end_batch("batch_2")
    pause_s = await deliveries.attempt()

    assert await deliveries.jobs.claim(DELIVERY, 2) == []
    deliveries.clock.now += pause_s
    assert len(await deliveries.jobs.claim(DELIVERY, 2)) == 2


async def test_late_attempt_leaves_the_last_one_at_the_end_of_the_day(deliveries, receiver):
    await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [500] * 2
    await deliveries.end_batch()
    deliveries.clock.now += LIFETIME_S - 2
    pause_s = await deliveries.attempt()
    deliveries.clock.now += pause_s

    assert 0 < pause_s <= 2
    assert await deliveries.attempt() is None
    assert deliveries.counted("given_up") == 1


async def test_other_event_is_postponed_once(deliveries, receiver):
    await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [500] * 2
    await deliveries.end_batch("batch_1")
    await deliveries.end_batch("batch_2")
    pause_s = await deliveries.attempt()
    deliveries.clock.now += pause_s

    assert await deliveries.attempt() == PAUSES_S[1]
    assert await deliveries.attempt() is None
    ids = [json.loads(receiver.next().body)["data"]["id"] for _ in range(3)]
    assert ids == ["batch_1", "batch_1", "batch_2"]


async def test_disabled_endpoint_has_one_record_for_all_events_that_waited(deliveries, receiver):
    endpoint = await deliveries.add_endpoint(receiver.url)
    receiver.statuses = [500]
    for number in range(4):
        await deliveries.end_batch(f"batch_{number}")
    deliveries.clock.now += LIFETIME_S
    await deliveries.attempt()
    (failure,) = await deliveries.webhooks.failures(endpoint.id)

    assert failure.is_disabling
    assert failure.reason == (
        "The endpoint answered with 500. Waiting events dropped with this one: 3."
    )
    assert (await deliveries.number_waiting(), deliveries.counted("given_up")) == (0, 4)


async def test_rotated_secret_is_kept_for_a_day_beside_the_new_one(deliveries, receiver):
    endpoint = await deliveries.add_endpoint(receiver.url)
    rotated = await deliveries.webhooks.rotate(endpoint.id, new_secret(), keep_s=24 * 3600)
    await deliveries.end_batch()
    await deliveries.attempt()
    both = receiver.next()
    both.verify(endpoint.secret)
    both.verify(rotated.secret)
    deliveries.clock.now += 24 * 3600
    await deliveries.end_batch()
    await deliveries.attempt()
    one = receiver.next()
    await deliveries.webhooks.expire()

    one.verify(rotated.secret)
    with pytest.raises(InvalidWebhookSignatureError):
        one.verify(endpoint.secret)
    assert (await deliveries.webhooks.get(endpoint.id)).previous_secret is None


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:{port}/", "must be https"),
        ("https://127.0.0.1/", "private address"),
        ("https://[::ffff:10.0.0.1]/", "private address"),
        ("https://localhost/", "public address"),
        ("https://2130706433/", "not a URL"),
    ],
)
async def test_internal_addresses_get_no_event_unless_the_setting_names_them(
    database, receiver, url, reason
):
    deliveries = Deliveries(database, (), timeout_s=30)
    endpoint = await deliveries.add_endpoint(url.format(port=receiver.port))
    await deliveries.end_batch()
    deliveries.clock.now += LIFETIME_S

    assert await deliveries.attempt() is None
    (failure,) = await deliveries.webhooks.failures(endpoint.id)
    assert reason in failure.reason
    assert failure.status_code is None
    assert receiver.received.empty()
