"""Administered objects: API keys, projects and what belongs to them; usage, and the audit log.

administration.py      records and keys, with their audit log
values.py              records, keys, audit log entries
rows.py                these as rows
usage.py               usage by the minute
deferred_usage.py      usage that upstreams report later
grants.py              rate limits shared by servers, granted in blocks (`block_grants`)
client_secrets.py      secrets of realtime sessions
concurrency_leases.py  concurrency limits shared by servers
stored_answers.py      answers of idempotency keys
"""

from llm_backend.store.administration.administration import Administration, AuditedChange
from llm_backend.store.administration.client_secrets import ClientSecrets, StoredSecret
from llm_backend.store.administration.concurrency_leases import ConcurrencyLeases, LeaseChange
from llm_backend.store.administration.deferred_usage import DeferredUsageRow, DeferredUsageStore
from llm_backend.store.administration.grants import Grants
from llm_backend.store.administration.stored_answers import AnswerClaim, StoredAnswer, StoredAnswers
from llm_backend.store.administration.usage import (
    AMOUNTS,
    StoredUsage,
    Tokens,
    UsageFilter,
    UsageKey,
    UsageSum,
)
from llm_backend.store.administration.values import (
    AccessSnapshot,
    AuditEntry,
    AuditFilter,
    Record,
    StoredKey,
)

__all__ = [
    "AMOUNTS",
    "AccessSnapshot",
    "Administration",
    "AnswerClaim",
    "AuditEntry",
    "AuditFilter",
    "AuditedChange",
    "ClientSecrets",
    "ConcurrencyLeases",
    "DeferredUsageRow",
    "DeferredUsageStore",
    "Grants",
    "LeaseChange",
    "Record",
    "StoredAnswer",
    "StoredAnswers",
    "StoredKey",
    "StoredSecret",
    "StoredUsage",
    "Tokens",
    "UsageFilter",
    "UsageKey",
    "UsageSum",
]
