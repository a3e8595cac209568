"""Keyring: authentication by API key from memory, also during an outage of the database."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.access import Keyring, new_key
from llm_backend.access.authentication.key_admin import create_key, revoke_key
from llm_backend.access.wiring import Access
from llm_backend.errors import Forbidden, ServiceUnavailable, Unauthorized
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import Administration, AuditedChange

CHANGE = AuditedChange(type="api_key.created", resource_id="x")


class Unreachable(Administration):
    """A database that may be down."""

    is_down = hangs = is_full = hangs_at_writes = False
    looks = 0

    async def version(self) -> int:
        self.looks += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_down:
            raise StoreUnavailable("The database is down.")
        return await super().version()

    async def record_key_use(self, times: Mapping[str, int]) -> None:
        if self.hangs_at_writes:
            await asyncio.Event().wait()
        if self.is_full:
            raise StoreUnavailable("The disk is full.")
        await super().record_key_use(times)


@pytest.fixture
async def administration(tmp_path: Path) -> AsyncIterator[Unreachable]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield Unreachable(database)


@pytest.fixture
async def keyring(administration: Administration) -> Keyring:
    ring = Keyring(administration, ["sk-two", "sk-one"])
    await ring.open()
    return ring


WORKS: Any = SimpleNamespace(administers=False)  # an operation


def access_of(keyring: Keyring) -> Access:
    """All there is of it that tells who asks."""
    parts: Any = {field.name: None for field in fields(Access)}
    return Access(**{**parts, "keyring": keyring})


def bearing(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_requests_need_no_key_while_there_is_none(administration):
    keyring = Keyring(administration)
    await keyring.open()

    caller = keyring.authenticate({})

    assert (caller.key_id, caller.project_id, caller.may_administer) == (
        None, "proj_default", True,
    )  # fmt: skip


async def test_closed_server_refuses_requests_while_there_is_no_key(administration):
    keyring = Keyring(administration, may_be_open=False)
    await keyring.open()

    with pytest.raises(Unauthorized):
        keyring.authenticate({})


@pytest.mark.parametrize("value", ["Bearer sk-one", "bearer sk-one", "Bearer  sk-one "])
def test_key_of_the_settings_may_do_everything_and_is_never_listed(keyring, value):
    caller = keyring.authenticate({"authorization": value})

    assert caller.key_id
    assert caller.project_id == "proj_default"
    assert keyring.authenticate({"authorization": value}, administers=True) is caller
    assert "sk-one" not in repr(caller)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk-on"},
        {"authorization": "Bearer sk-onee"},
        {"authorization": "Basic sk-one"},
        {"authorization": "sk-one"},
        {"authorization": "Bearer \udcff"},
    ],
)
def test_other_credentials_are_unauthorized(keyring, headers):
    with pytest.raises(Unauthorized) as caught:
        keyring.authenticate(headers)
    assert caught.value.status == 401


async def test_first_key_closes_an_open_server(administration):
    keyring = Keyring(administration)
    await keyring.open()
    key = await create_key(administration, "first")
    await keyring.refresh()

    assert keyring.authenticate(bearing(key.value)).key_id == key.stored.id
    with pytest.raises(Unauthorized):
        keyring.authenticate({})


async def test_change_of_another_process_is_known_after_the_next_poll(administration, keyring):
    key = await create_key(administration, "new")
    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing(key.value))

    await keyring.refresh()
    assert keyring.authenticate(bearing(key.value)).project_id == "proj_default"
    await revoke_key(administration, key.stored.id)
    await keyring.refresh()
    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing(key.value))


async def test_poll_begun_before_a_change_does_not_undo_it(administration, keyring):
    key = await create_key(administration, "app")
    await keyring.refresh()
    looks = [asyncio.create_task(keyring.refresh()) for _ in range(3)]
    await revoke_key(administration, key.stored.id)
    await keyring.refresh()
    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing(key.value))
    await asyncio.gather(*looks)

    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing(key.value))


async def test_keys_outlive_an_outage_and_unknown_ones_are_overload(administration, keyring):
    key = await create_key(administration, "app")
    await keyring.refresh()
    administration.is_down = True
    await keyring.refresh()

    assert keyring.authenticate(bearing(key.value)).key_id == key.stored.id
    with pytest.raises(ServiceUnavailable) as caught:
        keyring.authenticate(bearing("sk-made-meanwhile"))
    assert caught.value.retry_after_s


async def test_server_without_keys_is_not_open_before_the_first_poll(administration):
    keyring = Keyring(administration)
    administration.is_down = True
    await keyring.open()

    with pytest.raises(ServiceUnavailable):
        keyring.authenticate({})
    with pytest.raises(ServiceUnavailable):
        keyring.authenticate(bearing("sk-one"))


async def test_key_is_valid_until_it_expires(administration):
    now = [1000.0]
    keyring = Keyring(administration, clock=lambda: now[0])
    key = new_key("short", project_id="proj_default", lifetime_s=60)
    now[0] = float(key.stored.created_at)
    await administration.add_key(CHANGE, key.stored)
    await keyring.open()

    assert keyring.authenticate(bearing(key.value))
    now[0] += 60
    with pytest.raises(Unauthorized, match="expired"):
        keyring.authenticate(bearing(key.value))


async def test_admin_key_may_only_administer(administration, keyring):
    key = await create_key(administration, "ops", is_admin=True)
    await keyring.refresh()

    assert keyring.authenticate(bearing(key.value), administers=True).may_administer
    with pytest.raises(Forbidden):
        keyring.authenticate(bearing(key.value))


async def test_last_use_of_a_key_is_recorded_in_the_background(administration, keyring):
    key = await create_key(administration, "app")
    await keyring.refresh()
    keyring.authenticate(bearing(key.value))
    await keyring.refresh()

    stored = await administration.key(key.stored.id, project_id="proj_default")
    assert stored.last_used_at is not None
    assert stored.hash != key.value


async def test_keys_stay_current_while_their_use_cannot_be_stored(administration, keyring):
    key = await create_key(administration, "app")
    await keyring.refresh()
    administration.is_full = True
    keyring.authenticate(bearing(key.value))
    await keyring.refresh()
    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing("sk-unknown"))
    administration.is_full = False
    await keyring.refresh()

    stored = await administration.key(key.stored.id, project_id="proj_default")
    assert stored.last_used_at is not None


async def test_background_work_needs_a_valid_key(
    administration,
):
    keyring = Keyring(administration)
    await keyring.open()
    made = new_key("k", project_id="proj_default")
    await administration.add_key(CHANGE, made.stored)
    await keyring.refresh()
    caller = keyring.authenticate(bearing(made.value))

    assert keyring.caller_of(caller.key_id) is caller
    assert keyring.caller_of(None).key_id is None
    with pytest.raises(Unauthorized, match="revoked"):
        keyring.caller_of("key_of_the_past")


async def test_background_work_waits_for_keys_that_are_not_loaded(administration):
    key = await create_key(administration, "app")
    keyring = Keyring(administration, may_be_open=False)
    administration.is_down = True
    await keyring.open()
    with pytest.raises(ServiceUnavailable):
        await keyring.find_caller_of(key.stored.id)
    administration.is_down = False
    await keyring.refresh()

    assert (await keyring.find_caller_of(key.stored.id)).key_id == key.stored.id


async def test_background_work_finds_keys_made_since_the_last_poll(administration, keyring):
    key = await create_key(administration, "made by another process")

    assert (await keyring.find_caller_of(key.stored.id)).key_id == key.stored.id
    await revoke_key(administration, key.stored.id)
    await keyring.refresh()
    with pytest.raises(Unauthorized, match="revoked"):
        await keyring.find_caller_of(key.stored.id)


async def test_unknown_key_is_polled_for_before_it_is_refused(administration, keyring):
    access = access_of(keyring)
    key = await create_key(administration, "made by another process")

    assert (await access.authenticate(bearing(key.value), WORKS)).key_id == key.stored.id
    with pytest.raises(Unauthorized):
        await access.authenticate(bearing("sk-guessed"), WORKS)
    administration.is_down = True
    with pytest.raises(ServiceUnavailable):  # at once, though the last look was well
        await access.authenticate(bearing("sk-guessed"), WORKS)


async def test_unknown_keys_share_polls(administration, keyring):
    access = access_of(keyring)
    before = administration.looks

    asked = [access.authenticate(bearing(f"sk-{number}"), WORKS) for number in range(50)]
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(one, Unauthorized) for one in answers)
    assert administration.looks - before <= 2


async def test_slow_write_of_last_uses_does_not_make_keys_stale(administration, keyring):
    key = await create_key(administration, "in use")
    await keyring.refresh()
    keyring.authenticate(bearing(key.value))
    administration.hangs_at_writes = True

    with pytest.raises(Unauthorized):
        await access_of(keyring).authenticate(bearing("sk-guessed"), WORKS)


async def test_poll_for_an_unknown_key_has_a_timeout(administration, keyring, monkeypatch):
    monkeypatch.setattr("llm_backend.access.authentication.keyring.POLL_TIMEOUT_S", 0.01)
    administration.hangs = True

    with pytest.raises(ServiceUnavailable):
        await access_of(keyring).authenticate(bearing("sk-guessed"), WORKS)
