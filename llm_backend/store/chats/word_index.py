"""Index of the words of chats: FTS5 on SQLite, `tsvector` with GIN on PostgreSQL.

A trigger adds a row to `unindexed_chats` for each stored chat, which costs 1 to 2 % of the time of
storing it (a separate statement: 10 to 12 %). The words are indexed later, those of some chats in a
transaction. A trigger or a foreign key deletes the words of a deleted chat. The index also holds a
word for the owner and one for each pair of metadata, so that a search reads no other owner's
chats.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Text,
    bindparam,
    column,
    select,
    table,
    text,
)
from sqlalchemy import delete as delete_from

from llm_backend.json_types import JsonMapping
from llm_backend.store.chats.chat_texts import texts_of
from llm_backend.store.chats.words import words_of
from llm_backend.store.database.bulk_insert import insert_rows
from llm_backend.store.database.upsert import insert_into
from llm_backend.store.tables.chats import chat_messages, chat_metadata, chats, unindexed_chats

# A transaction on SQLite blocks other writes.
_CHATS_PER_TRANSACTION, _BYTES_PER_TRANSACTION = 128, 4 * 1024 * 1024

CREATE: Mapping[str, Sequence[str]] = {
    "sqlite": (
        # The tokenizer splits at spaces only: words have no other character of ASCII.
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
"""Statements that create the index, by dialect: its tables differ too much for one `Table`."""

_ADD = text(
    "INSERT INTO chat_words (chat_seq, words) VALUES (:seq, array_to_tsvector(:words))"
).bindparams(bindparam("words", type_=ARRAY(Text)))
_FIND = {
    "sqlite": text(
        "SELECT rowid FROM chat_words WHERE chat_words MATCH :found AND rowid < :before "
        "ORDER BY rowid DESC LIMIT :limit"
    ),
    # The offset keeps the planner from reading all chats in order until enough of them match.
    "postgresql": text(
        "SELECT chat_seq FROM (SELECT chat_seq FROM chat_words "
        "WHERE words @@ CAST(:found AS tsquery) AND chat_seq < :before OFFSET 0) AS found "
        "ORDER BY chat_seq DESC LIMIT :limit"
    ),
}
# Not in the tables' metadata, because its columns depend on the database.
_WORDS = table("chat_words", column("rowid"), column("chat_seq"), column("words"))
_MAX_SEQ = 2**63 - 1


def create(connection: Connection) -> None:
    """Creates the index of a new database."""
    for statement in CREATE[connection.dialect.name]:
        connection.exec_driver_sql(statement)


def index_some(connection: Connection, limit_characters: int) -> int:
    """Indexes the words of some unindexed chats; returns the number of these chats."""
    seqs = _lock_unindexed(connection)
    if not seqs:
        return 0
    texts = _texts(connection, seqs)
    _replace(connection, seqs, {one.seq: _words(one, limit_characters) for one in texts})
    connection.execute(delete_from(unindexed_chats).where(unindexed_chats.c.chat_seq.in_(seqs)))
    return len(seqs)


def index_again(connection: Connection, seq: int) -> None:
    """Marks a changed chat, so that its words are indexed again."""
    statement = insert_into(connection, unindexed_chats).on_conflict_do_nothing()
    connection.execute(statement, {"chat_seq": seq})


def find(
    connection: Connection,
    words: Sequence[str],
    facts: Sequence[str],
    *,
    before: int | None,
    limit: int,
) -> Sequence[int]:
    """Returns the `seq` of chats that have all `facts` and, for each of `words`, a word with that
    prefix: the latest first, and only those below `before` if it is given."""
    is_sqlite = connection.dialect.name == "sqlite"
    whole, beginning = ('"{}"', '"{}" *') if is_sqlite else ("'{}'", "'{}':*")
    sought = [whole.format(fact) for fact in facts]
    # A single letter is too common a prefix, so it matches whole words only.
    sought += [(beginning if _is_prefix_searched(word) else whole).format(word) for word in words]
    values = {
        "found": (" AND " if is_sqlite else " & ").join(sought),
        "before": _MAX_SEQ if before is None else before,
        "limit": limit,
    }
    return connection.scalars(_FIND[connection.dialect.name], values).all()


def _is_prefix_searched(word: str) -> bool:
    return len(word) > 1 or not word.isascii()


def facts_of(owner: str | None, metadata: Mapping[str, str]) -> list[str]:
    """Returns a word for the owner and one for each pair of metadata, by which a query finds only
    chats that have them. They begin with a character that no word of a text has."""
    facts = [f"owner {owner or ''}", *(_pair(key, value) for key, value in metadata.items())]
    return [_fact(one) for one in facts]


def _pair(key: str, value: str) -> str:
    """Returns a text that no other pair has, even if the key contains an equals sign."""
    is_plain = key and "=" not in key
    return f"{key}={value}" if is_plain else f"={len(key)} {key}={value}"


@lru_cache(maxsize=1024)
def _fact(fact: str) -> str:
    return "¬" + hashlib.sha256(fact.encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ChatTexts:
    """A chat as a search reads it."""

    seq: int
    owner: str | None
    metadata: Mapping[str, str]
    messages: Sequence[JsonMapping]
    response: JsonMapping


def read_texts(connection: Connection, rows: Sequence[Any]) -> list[ChatTexts]:
    """Returns the texts of these rows of chats, in their order."""
    seqs = [row.seq for row in rows]
    messages: dict[int, list[JsonMapping]] = {seq: [] for seq in seqs}
    order = (chat_messages.c.chat_seq, chat_messages.c.position)
    statement = select(chat_messages).where(chat_messages.c.chat_seq.in_(seqs)).order_by(*order)
    for row in connection.execute(statement):
        messages[row.chat_seq].append(row.message)
    metadata: dict[int, dict[str, str]] = {seq: {} for seq in seqs}
    for row in connection.execute(select(chat_metadata).where(chat_metadata.c.chat_seq.in_(seqs))):
        metadata[row.chat_seq][row.key] = row.value
    return [
        ChatTexts(
            seq=row.seq,
            owner=row.owner,
            metadata=metadata[row.seq],
            messages=messages[row.seq],
            response=row.response,
        )
        for row in rows
    ]


def _texts(connection: Connection, seqs: Sequence[int]) -> list[ChatTexts]:
    """Returns the texts of these chats, and locks their rows until the transaction ends."""
    rows = select(chats.c.seq, chats.c.owner, chats.c.response).where(chats.c.seq.in_(seqs))
    return read_texts(connection, connection.execute(rows.with_for_update(read=True)).all())


def _lock_unindexed(connection: Connection) -> list[int]:
    """Locks and returns some chats that are not indexed, except those that another transaction has
    locked: at least one, if there is any."""
    waiting = (
        select(chats.c.seq, chats.c.size_bytes)
        .join(unindexed_chats, unindexed_chats.c.chat_seq == chats.c.seq)
        .order_by(unindexed_chats.c.chat_seq.desc())  # a search wants the latest first
        .limit(_CHATS_PER_TRANSACTION)
        .with_for_update(of=unindexed_chats, skip_locked=True)
    )
    seqs: list[int] = []
    size_bytes = 0
    for row in connection.execute(waiting):
        size_bytes += row.size_bytes
        if seqs and size_bytes > _BYTES_PER_TRANSACTION:
            break
        seqs.append(row.seq)
    return seqs


def _words(chat: ChatTexts, limit_characters: int) -> list[str]:
    words = words_of(texts_of(chat.metadata, chat.messages, chat.response), limit_characters)
    return [*facts_of(chat.owner, chat.metadata), *words] if words else []


def _replace(
    connection: Connection, seqs: Sequence[int], words_by_seq: Mapping[int, Sequence[str]]
) -> None:
    """Replaces the words of these chats; chats without words have no row."""
    added = {seq: words for seq, words in words_by_seq.items() if words}
    if connection.dialect.name == "sqlite":
        connection.execute(delete_from(_WORDS).where(_WORDS.c.rowid.in_(seqs)))
        rows = [{"rowid": seq, "words": " ".join(words)} for seq, words in added.items()]
        insert_rows(connection, _WORDS, rows)
        return
    connection.execute(delete_from(_WORDS).where(_WORDS.c.chat_seq.in_(seqs)))
    if added:
        connection.execute(_ADD, [{"seq": seq, "words": words} for seq, words in added.items()])
