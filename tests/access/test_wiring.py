"""Opening of access control: expiry of the audit log, and the check for a key."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from llm_backend.access.wiring import open_access
from llm_backend.durations import DAY_S
from llm_backend.settings import Settings, SettingsError
from llm_backend.store import Database, migrate
from llm_backend.store.administration import Administration, AuditedChange, AuditFilter, Record
from llm_backend.store.keyset_pages import PageRequest


@pytest.mark.parametrize(("audit_days", "kept"), [(None, ["old", "young"]), (30, ["young"])])
async def test_audit_log_is_deleted_after_its_days(
    tmp_path: Path, audit_days: int | None, kept: list[str]
) -> None:
    settings = Settings(models=(), data_dir=tmp_path, audit_days=audit_days)
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        for id, days in (("old", 31), ("young", 29)):
            at = int(time.time() - days * DAY_S)
            administration = Administration(database, clock=lambda at=at: at)
            record = Record(id=id, kind="other", created_at=at, body={})
            await administration.add(AuditedChange(type="x", resource_id=id), record)
        async with open_access(settings, database, lambda *_: ()) as access:
            await access.expire()
            page = await access.administration.audit_entries(AuditFilter(), PageRequest())

    entries = [entry.resource_id for entry in page.items if entry.type == "x"]
    assert sorted(entries) == kept


@pytest.mark.parametrize(
    ("given", "config", "words"),
    [
        ({}, None, ""),
        ({"data_dir": "/a folder"}, None, " --data-dir '/a folder'"),
        ({}, "my config.yaml", " --config 'my config.yaml'"),
        ({"data_dir": "/data"}, "c.yaml", " --config c.yaml --data-dir /data"),
        ({"data_dir": "/data", "database_url": "postgresql://db/x"}, "c.yaml", " --config c.yaml"),
    ],
)
async def test_refusal_to_start_without_a_key_names_the_database_that_is_served(
    tmp_path: Path, given: dict[str, Any], config: str | None, words: str
) -> None:
    settings = Settings(models=(), host="0.0.0.0", **given)
    file = None if config is None else Path(config)
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        with pytest.raises(SettingsError, match=re.escape(f"keys create{words}`")):
            async with open_access(settings, database, lambda *_: (), config_file=file):
                pass
