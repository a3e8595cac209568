"""The tables of whoever may use the server, and how much: keys, what is administered, its log.

What clients of the administration operations create is an *administered* object: its body as the
document has it, found by kind and project. Only what is searched for otherwise has a table of its
own: keys, by their hashes, and the audit log, by its filters.
"""

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

from llm_backend.store.tables import metadata, stored_object

__all__ = [
    "administered",
    "api_keys",
    "audit_logs",
    "grants",
    "kept_answers",
    "running",
    "unsettled",
    "usage",
]

# `id` names the object among all: an id that is one's own only within a project (a member's) has
# the project's added by who stores it.
administered = stored_object(
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

api_keys = stored_object(
    "api_keys",
    Column("hash", Text, nullable=False, unique=True),  # SHA-256 of the key, in hexadecimal digits
    Column("name", Text, nullable=False),
    Column("shown", Text, nullable=False),  # what is told of the key: its ends
    Column("project_id", Text),  # None: an admin key
    Column("service_account_id", Text),
    Column("user_id", Text),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    is_owned=False,
)
Index(None, api_keys.c.project_id, api_keys.c.created_at, api_keys.c.seq)

audit_logs = stored_object(
    "audit_logs",
    Column("type", Text, nullable=False),
    Column("project_id", Text),
    Column("actor_id", Text),  # of the key that asked; None: the shell, or nobody needs a key
    Column("actor_email", Text),
    Column("resource_id", Text, nullable=False),
    Column("body", JSON, nullable=False),  # the entry as it is shown
    is_owned=False,
)


def _added(name: str) -> Column[int]:
    """A number that older tables did not have."""
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


# What was used, added up by the minute. Texts are empty where there is nothing to say: a key's
# columns cannot be null.
usage = Table(
    "usage",
    metadata,
    Column("minute_at", BigInteger, primary_key=True, autoincrement=False),  # unix seconds
    Column("kind", Text, primary_key=True),
    Column("project_id", Text, primary_key=True),
    Column("api_key_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("service_tier", Text, primary_key=True),
    Column("is_batch", Boolean, primary_key=True),
    Column("detail", Text, primary_key=True),  # what else the kind is told apart by
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    # Of the input, of the cached ones among it and of the output: what is no text.
    _added("input_picture_tokens"),
    _added("input_sound_tokens"),
    _added("cached_picture_tokens"),
    _added("cached_sound_tokens"),
    _added("output_picture_tokens"),
    _added("output_sound_tokens"),
    Column("units", BigInteger, nullable=False),  # what is counted other than tokens
)

# How much of a limit has been given out to servers that share it, by window.
grants = Table(
    "grants",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("window_at", BigInteger, primary_key=True, autoincrement=False),  # unix seconds
    Column("granted", BigInteger, nullable=False),
    Index(None, "window_at"),
)

# Answers to requests with an idempotency key, for servers that share a database. One that is still
# being made has no status, and is its holder's until its lease is over.
kept_answers = Table(
    "kept_answers",
    metadata,
    Column("name", Text, primary_key=True),  # a digest of whose key it is, and of which operation
    Column("digest", Text, nullable=False),  # of the request's body
    Column("holder", Text, nullable=False),
    Column("until_at", BigInteger, nullable=False, index=True),  # unix seconds
    Column("status", Integer),
    Column("headers", JSON),  # pairs of texts
    Column("body", LargeBinary),
    Column("size_bytes", BigInteger, nullable=False, index=True),
)

# How many requests of a scope may run at once at a server, which holds them by a lease. The row
# without a holder is held on to by whoever changes the others.
running = Table(
    "running",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("holder", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("until_at", BigInteger, nullable=False, index=True),  # unix seconds
)
# What upstreams go on with after their answers, by the id that they gave it: under which key of
# usage it counts, and how many of its tokens do already.
unsettled = Table(
    "unsettled",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False, index=True),  # unix seconds
    Column("kind", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("service_tier", Text, nullable=False),
    Column("is_batch", Boolean, nullable=False),
    Column("detail", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
)
