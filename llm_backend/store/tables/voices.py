"""Tables of cloned voices, and of the consents of the people whose voices they are."""

from sqlalchemy import JSON, Column, Index, Text

from llm_backend.store.tables.object_table import object_table, size_bytes

voice_consents = object_table(
    "voice_consents",
    Column("name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("content", JSON, nullable=False),  # the blob of the recording, as it was sent
    size_bytes(),
)
Index(None, voice_consents.c.owner)

voices = object_table(
    "voices",
    Column("name", Text, nullable=False),
    Column("consent_id", Text, nullable=False, index=True),
    Column("content", JSON, nullable=False),  # the blob of the sample: decoded samples
    size_bytes(),
)
Index(None, voices.c.owner)
