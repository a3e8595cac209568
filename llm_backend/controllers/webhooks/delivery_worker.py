"""Worker of webhook deliveries: sends each event until the endpoint accepts it, for a day.

The endpoint may get an event twice, if the server ends after a delivery and before it has stored
that.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import replace

from prometheus_client import Counter

from llm_backend import exact_json
from llm_backend.backends.webhook_sender import (
    WebhookAnswer,
    WebhookNotSent,
    WebhookSender,
    WebhookUrlRefused,
)
from llm_backend.controllers.webhooks.signature import signed_headers
from llm_backend.durations import DAY_S
from llm_backend.json_types import JsonMapping
from llm_backend.store import (
    FailedDelivery,
    Job,
    Missing,
    RetryLater,
    StoredEndpoint,
    WebhookStore,
)

LIFETIME_S = DAY_S
PAUSES_S = (5, 30, 120, 600, 1800, 3600, 7200, 4 * 3600, 6 * 3600, 10 * 3600)
"""Seconds before the second attempt, the third, and so on. A pause ends with `LIFETIME_S`."""
JITTER = 0.2
"""Each pause is longer by up to this share, so that events are not all retried together."""
GONE = 410  # by the rules of Standard Webhooks: the endpoint wants no more events
# When an attempt fails, the other deliveries of the endpoint that are still untried are postponed
# once: by the pause of the failed one, this at most, or by the time that the endpoint asked for.
_OTHERS_PAUSE_LIMIT_S = 300

log = logging.getLogger(__name__)


class DeliveryWorker:
    """Worker of deliveries. A job's details are the event, its subject is the endpoint.
    `random_share` returns random numbers from 0 to 1, for the jitter of pauses."""

    def __init__(
        self,
        webhooks: WebhookStore,
        sender: WebhookSender,
        deliveries: Counter,
        *,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._deliveries = deliveries
        self._random_share = random_share

    async def work(self, job: Job) -> None:
        """Sends the event once. Raises `RetryLater` if it failed and may be sent again."""
        try:
            endpoint = await self._webhooks.get(job.subject)
        except Missing:
            return
        if endpoint.disabled_at is not None:
            failed = FailedDelivery(
                attempts=job.attempt - 1, status_code=None, reason="The endpoint is disabled."
            )
            await self._give_up(job, failed)
            return
        sent_at, answer = self._webhooks.now, None
        try:
            answer = await send_event(self._sender, endpoint, job.details, sent_at)
            reason = f"The endpoint answered with {answer.status}."
        except (WebhookNotSent, WebhookUrlRefused) as error:
            reason = str(error)
        if answer is not None and answer.is_accepted:
            await self._webhooks.finish(job)
            self._deliveries.labels("delivered").inc()
            return
        log.info("webhook_not_delivered", extra={**_log_fields(job), "reason": reason})
        status = None if answer is None else answer.status
        failed = FailedDelivery(attempts=job.attempt, status_code=status, reason=reason)
        if status == GONE:
            await self._give_up(job, replace(failed, gone_at=sent_at))
        else:
            await self._retry_or_give_up(job, failed, answer)

    async def give_up(self, job: Job) -> None:
        """Records the failure of a delivery: the server ended during each of its last attempts."""
        reason = "The server ended during the last attempts."
        failed = FailedDelivery(attempts=job.attempt - 1, status_code=None, reason=reason)
        await self._give_up(job, failed)

    async def _retry_or_give_up(
        self, job: Job, failed: FailedDelivery, answer: WebhookAnswer | None
    ) -> None:
        now = self._webhooks.now
        remaining_s: float = job.details["created_at"] + LIFETIME_S - now
        if remaining_s <= 0:
            await self._give_up(job, failed)
            return
        requested_s = 0.0 if answer is None else answer.pause_s(now)
        longer = 1 + JITTER * self._random_share()
        usual_s = PAUSES_S[min(job.attempt, len(PAUSES_S)) - 1] * longer
        pause_s = min(max(usual_s, requested_s), remaining_s)
        others_s = min(max(min(usual_s, _OTHERS_PAUSE_LIMIT_S), requested_s), LIFETIME_S)
        await self._webhooks.postpone_others(job, others_s)
        self._deliveries.labels("retried").inc()
        raise RetryLater(pause_s)

    async def _give_up(self, job: Job, failed: FailedDelivery) -> None:
        dropped = await self._webhooks.give_up(job, failed)
        self._deliveries.labels("given_up").inc(1 + (dropped or 0))
        fields = {**_log_fields(job), "attempts": failed.attempts, "reason": failed.reason}
        log.warning("webhook_given_up", extra=fields)
        if dropped is not None:
            fields = {"endpoint_id": job.subject, "dropped": dropped}
            log.warning("webhook_endpoint_disabled", extra=fields)


async def send_event(
    sender: WebhookSender, endpoint: StoredEndpoint, event: JsonMapping, now: float
) -> WebhookAnswer:
    """Sends an event, signed, and returns the answer. Raises `WebhookUrlRefused`,
    `WebhookNotSent`."""
    body = exact_json.dumps(event)
    headers = signed_headers(event["id"], body, now, endpoint.active_secrets(now))
    return await sender.send(endpoint.url, body, headers)


def _log_fields(job: Job) -> dict[str, object]:
    details = job.details
    return {
        "endpoint_id": job.subject,
        "event_id": details["id"],
        "event_type": details["type"],
    }
