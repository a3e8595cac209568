"""Table of jobs: work that outlives its request. `subject` is the id of the object that a job works
on, such as a batch or a webhook endpoint.

While a job has a lease, `due_at` is the lease's end; without one, it is when the job may begin. A
due job can be claimed, whether it was never claimed or its holder has died.
"""

from sqlalchemy import JSON, Column, Double, Index, Integer, Table, Text

from llm_backend.store.database.metadata import SEQUENCE, metadata

jobs = Table(
    "jobs",
    metadata,
    Column("seq", SEQUENCE, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),  # the id of the object that it works on
    Column("details", JSON, nullable=False),
    Column("due_at", Double, nullable=False),  # unix seconds
    Column("attempts", Integer, nullable=False),  # since its last progress
    Column("lease", Text, index=True),  # of its holder: a new one for each claim
    # vector index that only some processes can open; None: any process can do the job
    Column("affinity", Text),
    Index(None, "kind", "due_at", "seq"),
    Index(None, "kind", "subject"),
)
