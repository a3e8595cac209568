"""Databases of each kind: a test with this fixture runs on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete

from llm_backend.store import ChatStore, Database, migrate
from llm_backend.store.database.metadata import metadata
from tests.clock import Clock
from tests.postgresql import PostgresqlServer


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of database of the test."""
    return request.param


@pytest.fixture
def database_url(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new, empty database without tables."""
    if kind == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server = request.getfixturevalue("postgresql_server")
    url = server.new_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    """One database for all tests that need empty tables: creating one takes a while."""
    return postgresql_server.new_database()


@pytest.fixture
async def database(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """A database with its tables, all empty."""
    async with Database.open(request.getfixturevalue(f"{kind}_url")) as database:
        await migrate(database)
        await database.write(empty)
        yield database


def empty(connection: Connection) -> None:
    """Deletes all rows."""
    for table in reversed(metadata.sorted_tables):
        connection.execute(delete(table))


@pytest.fixture
def clock() -> Clock:
    """The clock of all objects that a test's fixtures open."""
    return Clock()


@pytest.fixture
def chats(database: Database) -> ChatStore:
    """The stored chats of the database: none."""
    return ChatStore(database)
