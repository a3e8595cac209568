"""Opening and checking a database, and all its errors."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, insert, literal, select
from sqlalchemy.exc import OperationalError

from llm_backend.store import (
    CannotOpen,
    ChatStore,
    Database,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    migrate,
)
from llm_backend.store.database import database as database_module
from llm_backend.store.database import sqlite as sqlite_engine
from llm_backend.store.database.driver_errors import translate_error
from llm_backend.store.database.metadata import metadata
from llm_backend.store.database.write_health import probe
from tests.store.chat_values import a_chat, every_chat


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "neither sqlite"),
        ("state.db", "neither sqlite"),
        ("mysql://root@localhost/state", "`mysql` is not a database"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////no/such/folder/state.db", "No such file or directory"),
        ("sqlite:////", "Is a directory"),
    ],
)
async def test_database_that_cannot_be_opened_is_explained_in_a_sentence(url, said):
    with pytest.raises(CannotOpen, match=said):
        async with Database.open(url):
            pass


async def test_bad_url_error_does_not_contain_the_password():
    with pytest.raises(CannotOpen) as refused:
        async with Database.open("mysql://root:secret@localhost/state"):
            pass

    assert "secret" not in str(refused.value)


async def test_postgresql_without_its_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncpg", None)

    with pytest.raises(CannotOpen, match=r"pip install 'llm-backend\[postgresql\]'"):
        async with Database.open("postgresql://localhost/state"):
            pass


async def test_database_urls_of_other_drivers_are_accepted(sqlite_url, postgresql_url):
    for url in (
        sqlite_url.replace("sqlite:", "sqlite+aiosqlite:"),
        postgresql_url.replace("postgresql:", "postgres:"),
        postgresql_url.replace("postgresql:", "postgresql+asyncpg:"),
        postgresql_url + "?sslmode=prefer&application_name=llm-backend",
    ):
        async with Database.open(url) as database:
            await migrate(database)

            await database.check()


async def test_unreachable_server_is_unavailable_and_not_an_error_at_start():
    async with Database.open("postgresql://unknown@127.0.0.1:1/state") as database:
        with pytest.raises(StoreUnavailable, match="cannot be used"):
            await database.check()
        with pytest.raises(StoreUnavailable):
            await ChatStore(database).add(a_chat(), [])


async def test_unknown_database_on_the_server_is_unavailable(postgresql_url):
    async with Database.open(postgresql_url + "_not") as database:
        with pytest.raises(StoreUnavailable, match="does not exist"):
            await database.check()


async def test_database_reconnects_to_a_restarted_server(postgresql_server):
    url = postgresql_server.new_database()
    async with Database.open(url) as database:
        await migrate(database)
        await ChatStore(database).add(a_chat(), [])

        postgresql_server.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'",
        )

        await ChatStore(database).add(a_chat(), [])
        assert len((await ChatStore(database).list()).items) == 2


async def test_check_accepts_a_ready_database(database):
    await database.check()


async def test_checks_of_a_stuck_database_add_one_probe(sqlite_url, monkeypatch):
    probes, may_end = [], threading.Event()

    def wait_for_test(_connection: Connection) -> None:
        may_end.wait(60)

    def count_probe(connection: Connection) -> None:
        probes.append("begun")
        probe(connection)

    monkeypatch.setattr(database_module, "_CHECK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(database_module, "probe", count_probe)
    async with Database.open(sqlite_url) as database:
        await migrate(database)
        database._health.record_failure(StoreFull("The disk is full."))
        stuck = asyncio.create_task(database.write(wait_for_test))
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                await database.check()
        may_end.set()
        await stuck
        monkeypatch.setattr(database_module, "_CHECK_TIMEOUT_S", 60)
        await database.check()

    assert len(probes) == 1


async def test_check_refuses_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "state.db"
    path.write_text("Dear diary, " * 1000)

    with pytest.raises(StoreUnavailable, match="not a database"):
        async with Database.open(f"sqlite:///{path}"):
            pass


async def test_full_disk_is_reported_until_a_probe_succeeds(sqlite_url):
    def bounded(pages: int):
        return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    async with Database.open(sqlite_url) as database:
        await migrate(database)
        chats = ChatStore(database)
        large = a_chat(response={"text": "x" * 1_000_000})
        await database.write(bounded(20))

        with pytest.raises(StoreFull, match="disk"):
            await chats.add(large, [])
        await database.write(bounded(2**30))
        await chats.add(large, [])

        assert await chats.get(large.id) == large


def test_failure_to_grow_the_wal_index_is_a_full_disk():
    cause = sqlite3.OperationalError("disk I/O error")
    cause.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE

    assert isinstance(translate_error(OperationalError("", {}, cause)), StoreFull)


async def test_database_errors_do_not_contain_message_texts(database):
    said = a_chat(metadata={"topic": "a secret plan"})
    await database.alter(lambda connection: connection.exec_driver_sql("DROP TABLE chat_metadata"))
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await ChatStore(database).add(said, [])
    finally:
        await database.alter(metadata.create_all)

    assert "secret plan" not in "".join(traceback.format_exception(caught.value))


async def test_database_locked_by_another_process_raises_store_locked(sqlite_url, monkeypatch):
    monkeypatch.setattr(sqlite_engine, "_PRAGMAS", ("PRAGMA busy_timeout = 50",))
    async with Database.open(sqlite_url) as database:
        await migrate(database)
        chats = ChatStore(database)
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StoreLocked):
            await chats.add(a_chat(), [])
        assert not (await chats.list()).items
        other.close()
        await chats.add(a_chat(), [])


async def test_concurrent_writers_wait_for_each_other(database_url):
    async with Database.open(database_url) as one, Database.open(database_url) as other:
        await asyncio.gather(migrate(one), migrate(other))
        chats = [a_chat(id=f"chat-{number}") for number in range(200)]
        await asyncio.gather(
            *(
                ChatStore((one, other)[number % 2]).add(chat, [])
                for number, chat in enumerate(chats)
            )
        )

        stored = {chat.id async for chat in every_chat(ChatStore(one))}
    assert stored == {chat.id for chat in chats}


async def test_database_readers_do_not_wait_for_a_writer(sqlite_url):
    async with Database.open(sqlite_url) as database:
        await migrate(database)
        other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
        other.execute("BEGIN IMMEDIATE")

        async with asyncio.timeout(4):  # who waits for a lock does so for five seconds
            await ChatStore(database).list()
        other.close()


async def test_database_file_is_readable_by_its_owner_only(sqlite_url):
    path = Path(sqlite_url.removeprefix("sqlite:///"))

    async with Database.open(sqlite_url) as database:
        await migrate(database)
        files = [path, path.with_name(path.name + "-wal")]

        assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]


async def test_commit_is_flushed_to_the_disk(sqlite_url):
    async with Database.open(sqlite_url) as database:
        modes = await database.write(
            lambda connection: [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        )

    full = 2
    assert modes == ["wal", full, 1]


async def test_closing_the_database_closes_all_connections(postgresql_server):
    url = postgresql_server.new_database()
    async with Database.open(url) as database:
        await migrate(database)
        await asyncio.gather(*(ChatStore(database).list() for _ in range(20)))

    name = url.rpartition("/")[2]
    connected = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    for _ in range(1000):  # the server notices a moment later
        if postgresql_server.sql("postgres", connected).strip() == "0":
            break
        await asyncio.sleep(0.02)
    else:
        pytest.fail("connections are still open")


async def test_database_reports_durations_of_successful_writes_only(tmp_path):
    told: list[float] = []

    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}", told.append) as database:
        await migrate(database)
        await ChatStore(database).add(a_chat(), [])
        with pytest.raises(ZeroDivisionError):
            await database.write(lambda _: 1 // 0)

    (seconds,) = told
    assert 0 < seconds < 60


async def test_sqlite_connection_is_replaced_once_its_statements_hold_large_values(tmp_path):
    """A prepared statement keeps the values that were bound last."""
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:

        async def write(text: str) -> object:
            """Binds a text; returns the driver's connection that did."""

            def bind(connection: Connection) -> object:
                assert connection.scalar(select(literal(text))) == text
                return connection.connection.driver_connection

            return await database.write(bind)

        def bind_rows(connection: Connection) -> None:
            rows = [{"k": f"{n}", "v": "c" * 30_000} for n in range(1, 101)]
            connection.exec_driver_sql("CREATE TABLE pairs (k TEXT, v TEXT)")
            pairs = Table("pairs", MetaData(), Column("k"), Column("v"))
            connection.execute(insert(pairs), rows)
            assert len(connection.execute(insert(pairs).returning(pairs.c.k), rows).all()) == 100

        first = await write("small")
        assert await write("a" * 3_000_000) is first
        assert await write("b" * 3_000_000) is first
        second = await write("small")
        assert second is not first
        assert await write("small") is second
        await database.write(bind_rows)
        assert await write("d" * 3_000_000) is second
        assert await write("small") is not second


def test_mapper_of_sqlalchemy_and_other_drivers_are_not_imported():
    code = (
        "import sys, llm_backend.store; "
        "from llm_backend.store.database.postgresql import PostgresqlDatabase; "
        "PostgresqlDatabase('postgresql://nowhere/x', 1); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    modules = done.stdout.split()
    assert "sqlalchemy.ext.asyncio.engine" in modules
    assert not [name for name in modules if name.startswith("sqlalchemy.orm")]
    others = {f"sqlalchemy.dialects.postgresql.{name}" for name in ("psycopg", "psycopg2")}
    assert not {"sqlite3", "asyncpg.pool", *others} & set(modules)
