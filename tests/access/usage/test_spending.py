"""Spending of the month, spend limits and alerts."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_backend.access import Keyring, Ledger, Spending
from llm_backend.access.authentication import resource_kinds
from llm_backend.access.wiring import open_access
from llm_backend.errors import QuotaExceeded
from llm_backend.settings import Settings
from llm_backend.settings.access import Price
from llm_backend.store import Database, migrate
from llm_backend.store.administration import (
    Administration,
    AuditedChange,
    Grants,
    Record,
    StoredUsage,
    Tokens,
    UsageKey,
)
from tests.clock import Clock

CHANGE = AuditedChange(type="project.updated", resource_id="x")
PRICES = {"m": Price(input=10)}  # 1,000 tokens are a cent


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield database


@pytest.fixture
async def keyring(database: Database) -> Keyring:
    ring = Keyring(Administration(database))
    await ring.open()
    return ring


def spending_of(database: Database, keyring: Keyring) -> Spending:
    return Spending(StoredUsage(database), keyring, PRICES, Grants(database))


async def spend(database: Database, tokens: int, *, at: float | None = None) -> None:
    ledger = Ledger(StoredUsage(database))
    minute = int(at or time.time()) // 60 * 60
    key = UsageKey(minute, "completions", "proj_default", "k", "", "m", "default", False, "")
    ledger.add(key, tokens=Tokens(input_tokens=tokens))
    await ledger.write()


async def limit(database: Database, cents: int, *, project_id: str | None) -> None:
    record = Record(
        id=f"spend_limit@{project_id}",
        kind=resource_kinds.SPEND_LIMIT,
        created_at=1,
        project_id=project_id,
        body={"threshold_amount": cents},
    )
    await Administration(database).put(CHANGE, record)


@pytest.mark.parametrize("project_id", ["proj_default", None])
async def test_reached_spend_limit_raises_quota_exceeded(database, keyring, project_id):
    spending = spending_of(database, keyring)
    await limit(database, 2, project_id=project_id)
    await keyring.refresh()
    project = keyring.policy.projects["proj_default"]
    await spend(database, 1_999)
    await spending.refresh()
    spending.check(project)

    await spend(database, 1)
    await spending.refresh()
    with pytest.raises(QuotaExceeded, match=r"0\.02 USD") as refused:
        spending.check(project)
    assert (refused.value.status, refused.value.type) == (429, "insufficient_quota")


async def test_spending_is_loaded_before_the_first_request(database, keyring):
    await limit(database, 1, project_id="proj_default")
    await spend(database, 1_000)

    async with open_access(Settings(prices=PRICES), database, lambda _: ()) as access:
        with pytest.raises(QuotaExceeded):
            access.spending.check(access.keyring.policy.projects["proj_default"])


async def test_spending_of_last_month_does_not_count(database, keyring):
    spending = spending_of(database, keyring)
    await limit(database, 1, project_id=None)
    await keyring.refresh()
    await spend(database, 1_000_000, at=time.time() - 32 * 86_400)
    await spending.refresh()

    assert spending.cents() == 0


async def alert_at(database: Database, keyring: Keyring, cents: int) -> None:
    body = {"threshold_amount": cents, "notification_channel": {"recipients": ["ops@example.org"]}}
    alert = Record(id="alert_1", kind=resource_kinds.SPEND_ALERT, created_at=1, body=body)
    await Administration(database).put(CHANGE, alert)
    await keyring.refresh()


def logged_recipients(caplog: pytest.LogCaptureFixture) -> list[list[str]]:
    logged = [record for record in caplog.records if record.getMessage() == "spend_alert"]
    return [record.__dict__["recipients"] for record in logged]


async def test_alert_is_logged_once(database, keyring, caplog):
    await alert_at(database, keyring, 1)
    await spend(database, 1_000)
    processes = [spending_of(database, keyring) for _ in range(2)]
    for _ in range(2):
        for spending in processes:
            await spending.refresh()

    assert logged_recipients(caplog) == [["ops@example.org"]]


async def test_alert_is_logged_again_in_the_next_month(database, keyring, caplog):
    clock = Clock(1_767_225_599)  # the last second of a year
    spending = Spending(StoredUsage(database), keyring, PRICES, Grants(database), clock=clock)
    await alert_at(database, keyring, 1)
    for _ in range(2):
        await spend(database, 1_000, at=clock())
        await spending.refresh()
        clock.now += 60
        await spending.refresh()

    assert len(logged_recipients(caplog)) == 2
