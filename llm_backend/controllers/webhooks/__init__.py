"""Webhooks: events about background responses and batches, sent to endpoints of the project.

endpoints.py        create, list, change, delete; secrets; tests; failures
signature.py        secrets and signatures (Standard Webhooks)
delivery_worker.py  sends events, again and again for a day
"""

from llm_backend.controllers.services import Services
from llm_backend.controllers.webhooks.delivery_worker import DeliveryWorker
from llm_backend.store import DELIVERY, JobKind, delivery_limits

__all__ = ["webhook_jobs"]

# Twelve are made in a day. The others allow for attempts during which the server ended.
ATTEMPTS_PER_DELIVERY = 32


def webhook_jobs(services: Services) -> JobKind:
    """Returns the job kind of deliveries."""
    worker = DeliveryWorker(
        services.webhooks, services.webhook_sender, services.metrics.webhook_deliveries
    )
    return JobKind(
        name=DELIVERY,
        worker=worker,
        max_concurrency=services.settings.webhook_concurrency,
        limits=delivery_limits(
            per_endpoint=services.settings.webhook_endpoint_concurrency,
            per_project=services.settings.webhook_project_concurrency,
        ),
        attempts=ATTEMPTS_PER_DELIVERY,
    )
