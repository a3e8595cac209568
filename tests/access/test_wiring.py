"""Opening of access control: expiry of the audit log, and the check for a key."""

import re
import time
from pathlib import Path

import pytest

from llm_backend.access.wiring import DAY_S, open_access
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


async def test_refusal_to_start_without_a_key_names_the_data_folder_that_is_served(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data folder"
    settings = Settings(models=(), data_dir=folder, host="0.0.0.0")
    hint = re.escape(f"keys create --data-dir '{folder}'`")
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        with pytest.raises(SettingsError, match=hint):
            async with open_access(settings, database, lambda *_: ()):
                pass
