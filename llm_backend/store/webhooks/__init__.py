"""Webhook endpoints of projects, deliveries of events to them as jobs, and records of failures.

# in the transaction that ends a batch; `jobs.wake()` when it is committed
delivery_rows.add(connection, "batch.completed", batch.id, owner=batch.owner, now=now, limit=10)

webhooks.py         store of endpoints and deliveries
stored_endpoint.py  values
endpoint_rows.py    endpoints as rows
delivery_rows.py    deliveries as jobs
"""

from llm_backend.store.webhooks.stored_endpoint import (
    DeliveryLimit,
    EndpointChanges,
    FailedDelivery,
    StoredEndpoint,
    StoredFailure,
)
from llm_backend.store.webhooks.webhooks import DELIVERY, WebhookStore, delivery_limits

__all__ = [
    "DELIVERY",
    "DeliveryLimit",
    "EndpointChanges",
    "FailedDelivery",
    "StoredEndpoint",
    "StoredFailure",
    "WebhookStore",
    "delivery_limits",
]
