"""Webhooks: events about background responses and batches, sent to endpoints of the project.

`endpoints.py`        create, list, change, delete; secrets; tests; failures
`event_types.py`      types of the events that happen here
`signature.py`        secrets and signatures (Standard Webhooks)
`delivery_worker.py`  sends events, again and again for a day
"""

from llm_backend.controllers.services import Services
from llm_backend.controllers.webhooks.delivery_worker import DeliveryWorker
from llm_backend.store import DELIVERY, JobKind

__all__ = ["webhook_jobs"]

# The attempts of a day are twelve; others ended with their server.
ATTEMPTS = 32


def webhook_jobs(services: Services) -> JobKind:
    """Returns the job kind of deliveries."""
    worker = DeliveryWorker(
        services.webhooks, services.webhook_sender, services.metrics.webhook_deliveries
    )
    return JobKind(
        name=DELIVERY,
        worker=worker,
        at_once=services.settings.webhook_concurrency,
        limit_per_subject=services.settings.webhook_endpoint_concurrency,
        attempts=ATTEMPTS,
    )
