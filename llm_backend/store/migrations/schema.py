"""Schema revision of the tables: reads it, checks it, and migrates to the one of this program.

A start without changes must be quick, and Alembic costs a tenth of a second and several megabytes.
So it is imported only for an upgrade, and plain SQL reads the revision. A new database gets the
current tables directly; a test compares them with those that the migrations make.
"""

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select, text

from llm_backend.installation import command
from llm_backend.store import tables  # noqa: F401 # adds all tables to the metadata
from llm_backend.store.chats import word_index
from llm_backend.store.database.database import Database
from llm_backend.store.database.metadata import metadata
from llm_backend.store.errors import OldSchema, UnknownSchema

# every file of migrations/versions, oldest first
REVISIONS = (
    "0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010",
    "0011", "0012", "0013", "0014", "0015", "0016", "0017", "0018", "0019", "0020",
    "0021", "0022", "0023", "0024", "0025", "0026", "0027", "0028", "0029", "0030",
    "0031",
)  # fmt: skip
HEAD = REVISIONS[-1]

_LOCK = 0x6C6C6D62  # "llmb": key of PostgreSQL's advisory lock of a migration

# Alembic's own table, as Alembic creates it.
_VERSION = Table(
    "alembic_version",
    MetaData(naming_convention={"pk": "%(table_name)s_pkc"}),
    Column("version_num", String(32), primary_key=True),
)


async def migrate(database: Database) -> None:
    """Creates or upgrades the tables. If several processes start together, only one does it.

    Raises `UnknownSchema` if the database is ahead of this program.
    """
    if await database.read(revision) != HEAD:
        await database.alter(_upgrade)


async def check_schema(database: Database) -> None:
    """Raises `UnknownSchema` or `OldSchema` unless the tables are those of this program."""
    found = await database.read(revision)
    if found not in (None, *REVISIONS):
        raise _unknown(found)
    if found != HEAD:
        raise OldSchema(
            f"The database is at revision {found or 'none'}, this program needs {HEAD}: "
            f"run `{command('db migrate')}`."
        )


async def current_and_needed_revision(database: Database) -> tuple[str | None, str]:
    """Returns the revision of the tables (None if there are none), and the one that this program
    needs."""
    return await database.read(revision), HEAD


def revision(connection: Connection) -> str | None:
    """Returns the revision of the tables; None if there are no tables."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # on SQLite the transaction is exclusive
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    found = revision(connection)  # read again: another process may have upgraded
    if found == HEAD:
        return
    if found is None:
        _create(connection)
    elif found in REVISIONS:
        from llm_backend.store.migrations.migration import upgrade  # imports Alembic

        upgrade(connection)
    else:
        raise _unknown(found)


def _create(connection: Connection) -> None:
    metadata.create_all(connection, checkfirst=False)
    word_index.create(connection)
    _VERSION.create(connection, checkfirst=True)
    connection.execute(_VERSION.insert(), {"version_num": HEAD})


def _unknown(found: str | None) -> UnknownSchema:
    return UnknownSchema(
        f"The database is at revision {found}, which this program does not know (it knows up to "
        f"{HEAD}): it was written by a newer llm-backend. Start that one, or use another database."
    )
