"""Table of detached chats in progress: each is leased by the process that writes its answer, and
other servers of the database find it by its row."""

from sqlalchemy import JSON, BigInteger, Boolean, Column, Table, Text

from llm_backend.store.database.metadata import metadata

detached_chats = Table(
    "detached_chats",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("server", Text, nullable=False),  # the processes of a server have one name
    Column("holder", Text, nullable=False, index=True),  # the process
    Column("until_at", BigInteger, nullable=False, index=True),  # unix seconds
    Column("is_cancelled", Boolean, nullable=False),
    Column("content", JSON, nullable=False),
)
