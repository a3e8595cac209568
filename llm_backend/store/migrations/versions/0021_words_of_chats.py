"""Words of chats, for their search; existing chats are indexed by the first sweeps."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

_CREATE = {
    "sqlite": (
        "CREATE VIRTUAL TABLE chat_words USING fts5(words, detail=none, tokenize='ascii')",
        "CREATE TRIGGER chat_words_deleted AFTER DELETE ON chats "
        "BEGIN DELETE FROM chat_words WHERE rowid = old.seq; END",
        "CREATE TRIGGER chat_words_added AFTER INSERT ON chats "
        "BEGIN INSERT INTO unindexed_chats (chat_seq) VALUES (new.seq); END",
    ),
    "postgresql": (
        "CREATE TABLE chat_words (chat_seq BIGINT PRIMARY KEY "
        "REFERENCES chats (seq) ON DELETE CASCADE, words TSVECTOR NOT NULL)",
        "CREATE INDEX ix_chat_words_words ON chat_words USING gin (words)",
        "CREATE FUNCTION chat_words_added() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO unindexed_chats (chat_seq) SELECT seq FROM added; RETURN NULL; END $$",
        "CREATE TRIGGER chat_words_added AFTER INSERT ON chats REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION chat_words_added()",
    ),
}
_DROP = {
    "sqlite": ("DROP TRIGGER chat_words_added", "DROP TRIGGER chat_words_deleted"),
    "postgresql": (
        "DROP TRIGGER chat_words_added ON chats",
        "DROP FUNCTION chat_words_added",
    ),
}


def upgrade() -> None:
    seq = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "unindexed_chats",
        sa.Column("chat_seq", seq, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_seq"],
            ["chats.seq"],
            name=op.f("fk_unindexed_chats_chat_seq"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("chat_seq", name=op.f("pk_unindexed_chats")),
    )
    op.execute("INSERT INTO unindexed_chats (chat_seq) SELECT seq FROM chats")
    for statement in _CREATE[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DROP[op.get_bind().dialect.name]:
        op.execute(statement)
    op.execute("DROP TABLE chat_words")
    op.drop_table("unindexed_chats")
