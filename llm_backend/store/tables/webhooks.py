"""Tables of webhooks: endpoints, and records of deliveries that were given up."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, Integer, Text

from llm_backend.store.tables.object_table import object_table

webhook_endpoints = object_table(
    "webhook_endpoints",
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", JSON, nullable=False),
    Column("secret", Text, nullable=False),  # as it is: each delivery is signed with it
    Column("previous_secret", Text),
    Column("previous_secret_until", BigInteger),
    Column("updated_at", BigInteger, nullable=False),
    Column("working_at", Double, nullable=False),  # last delivery or change; unix seconds
    Column("disabled_at", BigInteger),
)
Index(None, webhook_endpoints.c.owner)

# `endpoint_id` is a name and not a reference: an event is recorded without a lock on its endpoint.
webhook_failures = object_table(
    "webhook_failures",
    Column("endpoint_id", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("subject_id", Text, nullable=False),  # of the response or the batch
    Column("attempts", Integer, nullable=False),
    Column("status_code", Integer),
    Column("reason", Text, nullable=False),
    Column("is_disabling", Boolean, nullable=False),
)
Index(None, webhook_failures.c.endpoint_id, webhook_failures.c.seq)
