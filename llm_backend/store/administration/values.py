"""Values of administration: records, keys, audit log entries."""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class Record:
    """One administered object. `id` is unique among all kinds; `body` has the other properties."""

    id: str
    kind: str
    created_at: int  # unix seconds
    body: JsonMapping
    project_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """A key without its secret: its hash, its first and last characters, by which clients recognise
    it, and its owner.

    A key without a project is an admin key.
    """

    id: str
    created_at: int  # unix seconds
    hash: str
    name: str
    shown: str
    project_id: str | None = None
    service_account_id: str | None = None
    user_id: str | None = None
    expires_at: int | None = None
    last_used_at: int | None = None
    description: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """An entry of the audit log; `body` is the part that depends on the type of the change."""

    id: str
    type: str
    created_at: int  # unix seconds
    resource_id: str
    body: JsonMapping
    project_id: str | None = None
    actor_id: str | None = None
    actor_email: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Filter of audit log entries; None matches all. Times are unix seconds."""

    types: Sequence[str] | None = None
    project_ids: Sequence[str] | None = None
    actor_ids: Sequence[str] | None = None
    actor_emails: Sequence[str] | None = None
    resource_ids: Sequence[str] | None = None
    after_s: int | None = None  # later than
    since_s: int | None = None  # at this time or later
    before_s: int | None = None  # earlier than
    until_s: int | None = None  # at this time or earlier


@dataclass(frozen=True, kw_only=True)
class AccessSnapshot:
    """All records and keys that decide permissions, as they were at `version`."""

    version: int
    records: Sequence[Record]
    keys: Sequence[StoredKey]
