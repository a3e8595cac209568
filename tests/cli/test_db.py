"""`llm-backend db`: the tables, and what is counted in them."""

import asyncio

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner, Result

from llm_backend.cli import app
from llm_backend.store import Database, migrate, tables


@pytest.fixture
def url(tmp_path, monkeypatch) -> str:
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path))
    return f"sqlite:///{tmp_path / 'llm-backend.sqlite3'}"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["db", *words])


def test_db_recount_corrects_the_total_of_bytes(url):
    file = {
        "id": "file-1", "created_at": 1, "purpose": "batch", "filename": "a",
        "media_type": "text/plain", "content": [], "size_bytes": 70,
    }  # fmt: skip

    async def store_by_hand() -> None:
        async with Database.open(url) as database:
            await migrate(database)
            await database.write(lambda one: one.execute(insert(tables.files.files), file))

    asyncio.run(store_by_hand())

    assert "have 70 bytes; the old count was 0" in run("recount").stdout
    assert "have 70 bytes; the old count was 70" in run("recount").stdout
