"""Tables of administration: keys, administered objects, the audit log, usage and shared limits.

The objects that clients create with the administration operations are *administered* objects: a
body as the document has it, found by kind and project. Objects that are also searched otherwise
have tables of their own: keys, by their hashes, and the audit log, by its filters.
"""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from llm_backend.store.database.metadata import metadata
from llm_backend.store.tables.object_table import object_table

# `id` is unique over all objects. An id that is unique only within a project (a member's) is stored
# with the project's id added.
administered = object_table(
    "administered",
    Column("kind", Text, nullable=False),
    Column("project_id", Text),  # None: the organization's
    Column("body", JSON, nullable=False),
    is_owned=False,
)
Index(
    None,
    administered.c.kind,
    administered.c.project_id,
    administered.c.created_at,
    administered.c.seq,
)

api_keys = object_table(
    "api_keys",
    Column("hash", Text, nullable=False, unique=True),  # SHA-256 of the key, in hexadecimal digits
    Column("name", Text, nullable=False),
    Column("shown", Text, nullable=False),  # the key's ends, by which clients recognise it
    Column("project_id", Text),  # None: an admin key
    Column("service_account_id", Text),
    Column("user_id", Text),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("description", Text),  # what it is for, in the words of its administrator
    is_owned=False,
)
Index(None, api_keys.c.project_id, api_keys.c.created_at, api_keys.c.seq)

# Client secrets of realtime sessions: short-lived keys, each for the session that it is bound to.
client_secrets = Table(
    "client_secrets",
    metadata,
    Column("hash", Text, primary_key=True),  # SHA-256 of the secret, in hexadecimal digits
    Column("expires_at", BigInteger, nullable=False, index=True),  # unix seconds
    Column("key_id", Text),  # of the key that made it; None: keys are off
    Column("session", JSON, nullable=False),
)

audit_logs = object_table(
    "audit_logs",
    Column("type", Text, nullable=False),
    Column("project_id", Text),
    Column("actor_id", Text),  # of the key of the request; None: the shell, or keys are off
    Column("actor_email", Text),
    Column("resource_id", Text, nullable=False),
    Column("body", JSON, nullable=False),  # the entry as it is shown
    is_owned=False,
)


def _late_column(name: str) -> Column[int]:
    """A number column that was added later, 0 in older rows."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _usage_key(*, is_primary: bool) -> Iterator[Column[Any]]:
    """The columns that usage is grouped by, besides its minute. A text that does not apply is
    empty: columns of a primary key cannot be null."""
    for name in ("kind", "project_id", "api_key_id", "user_id", "model", "service_tier"):
        yield Column(name, Text, primary_key=is_primary, nullable=False)
    yield Column("is_batch", Boolean, primary_key=is_primary, nullable=False)
    # further distinction within a kind
    yield Column("detail", Text, primary_key=is_primary, nullable=False)


# Usage, added up by the minute.
usage = Table(
    "usage",
    metadata,
    Column("minute_at", BigInteger, primary_key=True, autoincrement=False),  # unix seconds
    *_usage_key(is_primary=True),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    # Tokens that are not text: of the input, of its cached part, and of the output.
    _late_column("input_image_tokens"),
    _late_column("input_audio_tokens"),
    _late_column("cached_image_tokens"),
    _late_column("cached_audio_tokens"),
    _late_column("output_image_tokens"),
    _late_column("output_audio_tokens"),
    Column("units", BigInteger, nullable=False),  # counts other than tokens
)

# Amounts of shared rate limits that are granted to servers, by window.
grants = Table(
    "grants",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("window_at", BigInteger, primary_key=True, autoincrement=False),  # unix seconds
    Column("granted", BigInteger, nullable=False),
    Index(None, "window_at"),
)

# Answers to requests with an idempotency key, for servers that share a database. An unfinished
# answer has no status, and belongs to its holder until its lease ends.
stored_answers = Table(
    "stored_answers",
    metadata,
    Column("name", Text, primary_key=True),  # a digest of the owner of the key, and the operation
    Column("digest", Text, nullable=False),  # of the request's body
    Column("holder", Text, nullable=False),
    Column("until_at", BigInteger, nullable=False, index=True),  # unix seconds
    Column("status", Integer),
    Column("headers", JSON),  # pairs of texts
    Column("body", LargeBinary),
    Column("size_bytes", BigInteger, nullable=False, index=True),
)

# Permits of a scope that each server has leased. The row with an empty holder is locked by every
# transaction that changes the others.
concurrency_leases = Table(
    "concurrency_leases",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("holder", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("until_at", BigInteger, nullable=False, index=True),  # unix seconds
)

# Deferred usage: work that upstreams continue after their answers, by the upstream's id. A row has
# the key of usage under which the work counts, and the number of tokens that are counted already.
deferred_usage = Table(
    "deferred_usage",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False, index=True),  # unix seconds
    *_usage_key(is_primary=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
)
