"""The tables are those that the migrations make, and every start checks them."""

import asyncio
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from llm_backend.store import (
    ChatStore,
    ConversationStore,
    Database,
    OldSchema,
    UnknownSchema,
    check_schema,
    migrate,
    recount_files,
)
from llm_backend.store.administration import (
    AnswerClaim,
    ConcurrencyLeases,
    DeferredUsageStore,
    LeaseChange,
    StoredAnswer,
    StoredAnswers,
    Tokens,
)
from llm_backend.store.database.metadata import metadata
from llm_backend.store.jobs.jobs import Jobs
from llm_backend.store.migrations import schema
from llm_backend.store.migrations.migration import configuration, upgrade
from llm_backend.store.objects import orphans
from llm_backend.store.tables.chats import chats
from tests.store.chat_values import a_chat, some_messages


def described(connection: Connection) -> dict[str, object]:
    """Everything that the database reports about its tables, as text."""
    inspector = inspect(connection)
    return {
        name: [
            sorted(
                ({**column, "type": str(column["type"])} for column in inspector.get_columns(name)),
                key=str,
            ),
            inspector.get_pk_constraint(name),
            sorted(inspector.get_foreign_keys(name), key=str),
            sorted(inspector.get_unique_constraints(name), key=str),
            sorted(inspector.get_check_constraints(name), key=str),
            sorted(inspector.get_indexes(name), key=str),
        ]
        for name in sorted(inspector.get_table_names())
    }


def is_described(name: str | None, _kind: str, _parents: object) -> bool:
    """False for the index of words, which is not in the metadata."""
    return not (name or "").startswith("chat_words")


async def test_migrations_make_the_tables_of_the_program(database_url):
    async with Database.open(database_url) as database:
        await database.alter(upgrade)

        differences = await database.read(
            lambda connection: compare_metadata(
                MigrationContext.configure(
                    connection, opts={"compare_type": True, "include_name": is_described}
                ),
                metadata,
            )
        )

    assert differences == []


async def test_new_database_equals_a_migrated_one(database_url):
    async with Database.open(database_url) as database:
        await database.alter(upgrade)
        migrated = await database.read(described)
        await database.alter(drop_everything)

        await migrate(database)

        assert await database.read(described) == migrated


def drop_everything(connection: Connection) -> None:
    connection.execute(text("DROP TABLE chat_words"))
    metadata.drop_all(connection)
    if connection.dialect.name == "postgresql":
        connection.execute(text("DROP FUNCTION chat_words_added"))
    connection.execute(text("DROP TABLE alembic_version"))


async def test_revisions_are_those_of_the_migration_files(database):
    def files(connection: Connection) -> tuple[str, ...]:
        scripts = ScriptDirectory.from_config(configuration(connection))
        return tuple(script.revision for script in scripts.walk_revisions())[::-1]

    assert await database.read(files) == schema.REVISIONS


async def test_every_migration_can_be_downgraded(database_url):
    async with Database.open(database_url) as database:
        await database.alter(upgrade)
        await database.alter(lambda connection: downgrade(connection))

        assert await database.read(lambda c: inspect(c).get_table_names()) == ["alembic_version"]
        await migrate(database)
        await check_schema(database)


def downgrade(connection: Connection) -> None:
    from alembic import command

    command.downgrade(configuration(connection), "base")


async def test_migration_splits_an_item_that_a_list_contains_twice(database_url):
    def fill(connection: Connection) -> None:
        for statement in (
            "INSERT INTO conversations (seq, id, created_at, metadata) VALUES (1, 'conv', 1, '{}')",
            """INSERT INTO items (seq, id, item) VALUES (100, 'a', '{"id": "a", "text": "A"}')""",
            "INSERT INTO conversation_items VALUES (1, 0, 100), (1, 1, 100)",
        ):
            connection.exec_driver_sql(statement)

    async with Database.open(database_url) as database:
        await database.alter(lambda connection: upgrade(connection, "0012"))
        await database.write(fill)

        await migrate(database)

        first, again = (await ConversationStore(database).items("conv", order="asc")).items
    assert first.item == {"id": "a", "text": "A"}
    assert again.id.startswith("a_")
    assert again.item == {"id": again.id, "text": "A"}


async def test_migration_counts_existing_files(database_url):
    def fill(connection: Connection) -> None:
        for statement in (
            "INSERT INTO files (id, created_at, purpose, filename, media_type, content, "
            "size_bytes) VALUES ('a', 1, 'p', 'f', 'm', '[]', 30), "
            "('b', 1, 'p', 'f', 'm', '[]', 12)",
            "INSERT INTO uploads (seq, id, created_at, purpose, filename, media_type, size_bytes, "
            "expires_at, status) VALUES (7, 'u', 1, 'p', 'f', 'm', 9, 9, 'pending')",
            "INSERT INTO upload_parts (id, upload_seq, created_at, size_bytes, content) "
            "VALUES ('part', 7, 1, 5, '[]')",
        ):
            connection.exec_driver_sql(statement)

    async with Database.open(database_url) as database:
        await database.alter(lambda connection: upgrade(connection, "0018"))
        await database.write(fill)

        await migrate(database)

        assert await recount_files(database) == (47, 47)


async def test_migration_renames_tables_with_their_rows(database_url):
    def fill(connection: Connection) -> None:
        for statement in (
            "INSERT INTO loose_blobs VALUES ('deleted', 0, true), ('written', 9, false)",
            """INSERT INTO kept_answers VALUES
                ('n', 'd', 'h', 9000, 200, '[["a", "b"]]', CAST('x' AS BLOB), 1)""",
            "INSERT INTO running VALUES ('s', 'other', 2, 9000)",
            """INSERT INTO unsettled VALUES
                ('u', 60, 'k', 'p', 'key', 'user', 'm', 'tier', false, '', 3, 4)""",
            """INSERT INTO jobs (kind, subject, details, due_at, attempts, place)
                VALUES ('kind', 's', '{}', 1, 0, 'here')""",
        ):
            bytes_type = "BYTEA" if connection.dialect.name == "postgresql" else "BLOB"
            connection.exec_driver_sql(statement.replace("BLOB", bytes_type))

    async with Database.open(database_url) as database:
        await database.alter(lambda connection: upgrade(connection, "0024"))
        await database.write(fill)

        await migrate(database)

        keys = await database.write(orphans.mark_due_deleted, now=8)
        claim = await StoredAnswers(database).claim("n", digest="d", holder="i", now=1, until=2)
        leases = await ConcurrencyLeases(database).apply(
            [LeaseChange(scope="s", requested=5, limit=3)], holder="i", now=1, until=2
        )
        is_known = await DeferredUsageStore(database).charge("u", Tokens(), minute_at=120)
        jobs = await Jobs(database).claim("kind", 1, "here")
    assert keys == ["deleted"]
    assert claim == AnswerClaim(
        digest="d", answer=StoredAnswer(status=200, headers=[("a", "b")], body=b"x"), until_at=9000
    )
    assert leases == {"s": 1}
    assert is_known
    assert [job.affinity for job in jobs] == ["here"]


async def test_second_migration_changes_nothing(database_url):
    async with Database.open(database_url) as database:
        await migrate(database)
        chat = a_chat()
        await ChatStore(database).add(chat, [])

        await migrate(database)

        assert await ChatStore(database).get(chat.id) == chat


async def test_servers_may_start_concurrently_on_a_new_database(database_url):
    async def start() -> None:
        async with Database.open(database_url) as database:
            await migrate(database)
            await ChatStore(database).add(a_chat(), [])

    await asyncio.gather(*(start() for _ in range(6)))

    async with Database.open(database_url) as database:
        assert len((await ChatStore(database).list()).items) == 6


async def test_database_of_a_newer_program_is_refused_and_unchanged(database_url):
    async with Database.open(database_url) as database:
        await migrate(database)
        await database.write(at_revision("9999"))

        with pytest.raises(UnknownSchema, match=r"revision 9999.*newer llm-backend"):
            await migrate(database)
        with pytest.raises(UnknownSchema, match="9999"):
            await check_schema(database)
        assert await database.read(schema.revision) == "9999"


def at_revision(number: str):
    return lambda connection: connection.execute(
        text("UPDATE alembic_version SET version_num = :number"), {"number": number}
    )


async def test_database_without_tables_has_an_old_schema(database_url):
    async with Database.open(database_url) as database:
        with pytest.raises(OldSchema, match="llm-backend db migrate"):
            await check_schema(database)


async def test_failed_migration_is_rolled_back(database_url):
    def work(connection: Connection) -> None:
        upgrade(connection)
        raise ZeroDivisionError

    async with Database.open(database_url) as database:
        with pytest.raises(ZeroDivisionError):
            await database.alter(work)

        assert await database.read(lambda c: inspect(c).get_table_names()) == []


async def test_replacing_a_table_keeps_rows_that_refer_to_it(sqlite_url):
    def replace(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE copy AS SELECT * FROM chats"))
        connection.execute(text("DROP TABLE chats"))
        chats.create(connection)
        connection.execute(text("INSERT INTO chats SELECT * FROM copy"))
        connection.execute(text("DROP TABLE copy"))

    async with Database.open(sqlite_url) as database:
        await migrate(database)
        chat = a_chat(metadata={"key": "value"})
        await ChatStore(database).add(chat, some_messages(3))

        await database.alter(replace)

        assert await ChatStore(database).get(chat.id) == chat
        assert len((await ChatStore(database).messages(chat.id)).items) == 3
        assert await database.write(foreign_keys_are_on)


def foreign_keys_are_on(connection: Connection) -> bool:
    return connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_start_on_sqlite_does_not_import_alembic_or_async_drivers(sqlite_url):
    program = (
        "import asyncio, sys\n"
        "from llm_backend.store import Database, migrate\n"
        "async def main():\n"
        "    async with Database.open(sys.argv[1]) as database:\n"
        "        await migrate(database)\n"
        "asyncio.run(main())\n"
        "heavy = ('alembic', 'asyncpg', 'mako', 'sqlalchemy.orm', 'sqlalchemy.ext.asyncio')\n"
        "print(sorted(set(heavy) & set(sys.modules)))\n"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, sqlite_url], check=True, capture_output=True, text=True
        )
        assert done.stdout == "[]\n"
