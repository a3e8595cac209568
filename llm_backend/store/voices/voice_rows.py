"""Voices and consents as rows: SQL statements, each function one unit of work on a connection."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, func, insert, select, update
from sqlalchemy import delete as delete_from

from llm_backend.store.database.named_lock import lock_name
from llm_backend.store.database.ownership import owner_of
from llm_backend.store.errors import ConsentInUse, VoicesFull
from llm_backend.store.files import file_byte_total
from llm_backend.store.keyset_pages import Page, PageRequest, cursor_keys, fetch
from llm_backend.store.objects import orphans
from llm_backend.store.objects.blob import from_json, to_json
from llm_backend.store.row_values import find_row, row_from, value_from
from llm_backend.store.tables.voices import voice_consents, voices
from llm_backend.store.voices.stored_voice import StoredVoice, StoredVoiceConsent


def add_consent(
    connection: Connection, consent: StoredVoiceConsent, limit: int, limit_bytes: int | None
) -> None:
    """Inserts the consent, and claims its blob. Raises `VoicesFull`, `BlobGone`, `FilesFull`."""
    _add(connection, voice_consents, consent, limit, limit_bytes)


def add_voice(
    connection: Connection, voice: StoredVoice, limit: int, limit_bytes: int | None
) -> None:
    """Inserts the voice, and claims its blob. Raises `Missing` for its consent, `VoicesFull`,
    `BlobGone`, `FilesFull`."""
    _row(connection, voice_consents, voice.consent_id, is_locked=True)
    _add(connection, voices, voice, limit, limit_bytes)


def check_capacity(connection: Connection, limit: int) -> None:
    """Raises `VoicesFull` if there are as many voices as `limit` allows."""
    _check_capacity(connection, voices, limit)


def get_consent(connection: Connection, id: str) -> StoredVoiceConsent:
    """The consent with this id. Raises `Missing`."""
    return _consent(_row(connection, voice_consents, id))


def get_voice(connection: Connection, id: str) -> StoredVoice:
    """The voice with this id. Raises `Missing`."""
    return _voice(_row(connection, voices, id))


def find_consents(connection: Connection, request: PageRequest) -> Page[StoredVoiceConsent]:
    """A page of the consents. Raises `UnknownCursor`."""

    def sort_keys(id: str) -> tuple[int, int]:
        row = _row(connection, voice_consents, id)
        return row.created_at, row.seq

    keys = (voice_consents.c.created_at, voice_consents.c.seq)
    bound = cursor_keys(request, sort_keys)
    rows, has_more = fetch(connection, select(voice_consents), request, keys=keys, bound=bound)
    return Page(items=[_consent(row) for row in rows], has_more=has_more)


def find_voices(connection: Connection) -> Sequence[StoredVoice]:
    """All voices of the owner, the oldest first: `add_voice` bounds their number."""
    every = select(voices).order_by(voices.c.created_at, voices.c.seq)
    return [_voice(row) for row in connection.execute(every)]


def find_consent_languages(connection: Connection) -> Mapping[str, str]:
    """The languages of all consents of the owner, by id: `add_consent` bounds their number."""
    every = select(voice_consents.c.id, voice_consents.c.language)
    return {row.id: row.language for row in connection.execute(every)}


def rename_consent(connection: Connection, id: str, name: str) -> StoredVoiceConsent:
    """Changes the name of the consent, and returns it. Raises `Missing`."""
    _row(connection, voice_consents, id, is_locked=True)
    this = update(voice_consents).where(voice_consents.c.id == id).values(name=name)
    return _consent(connection.execute(this.returning(*voice_consents.c)).one())


def delete_consent(connection: Connection, id: str) -> Sequence[str]:
    """Deletes the consent; returns the keys of its blobs, which are to be removed. Raises
    `Missing`, and `ConsentInUse` while a voice depends on it."""
    row = _row(connection, voice_consents, id, is_locked=True)
    voice = connection.scalar(select(voices.c.id).where(voices.c.consent_id == id).limit(1))
    if voice is not None:
        raise ConsentInUse(id, voice)
    return _delete(connection, voice_consents, row)


def delete_voice(connection: Connection, id: str) -> Sequence[str]:
    """Deletes the voice; returns the keys of its blobs, which are to be removed. Raises
    `Missing`."""
    return _delete(connection, voices, _row(connection, voices, id, is_locked=True))


def _add(
    connection: Connection,
    table: Table,
    value: StoredVoice | StoredVoiceConsent,
    limit: int,
    limit_bytes: int | None,
) -> None:
    owner = owner_of(connection)
    lock_name(connection, f"{table.name} of {owner and owner.id}")
    _check_capacity(connection, table, limit)
    orphans.claim(connection, value.content)
    connection.execute(insert(table), row_from(value, table, content=to_json(value.content)))
    file_byte_total.add(connection, value.size_bytes, limit_bytes)


def _check_capacity(connection: Connection, table: Table, limit: int) -> None:
    if int(connection.scalar(select(func.count()).select_from(table)) or 0) >= limit:
        raise VoicesFull(limit)


def _delete(connection: Connection, table: Table, row: Row[Any]) -> Sequence[str]:
    connection.execute(delete_from(table).where(table.c.seq == row.seq))
    keys = orphans.discard(connection, from_json(row.content))
    file_byte_total.subtract(connection, row.size_bytes)
    return keys


def _row(connection: Connection, table: Table, id: str, *, is_locked: bool = False) -> Row[Any]:
    this = select(table).where(table.c.id == id)
    return find_row(connection, this.with_for_update() if is_locked else this, id)


def _consent(row: Row[Any]) -> StoredVoiceConsent:
    return value_from(row, StoredVoiceConsent, content=from_json(row.content))


def _voice(row: Row[Any]) -> StoredVoice:
    return value_from(row, StoredVoice, content=from_json(row.content))
