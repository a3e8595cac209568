"""Who asks, by the key that is sent: from memory, whatever becomes of the database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.access import Keyring, new_key
from llm_backend.access.authentication.key_admin import create_key, revoke_key
from llm_backend.access.wiring import Access
from llm_backend.errors import Forbidden, Overloaded, Unauthorized
from llm_backend.store import Database, StoreUnavailable, migrate
from llm_backend.store.administration import Administration, Change

CHANGE = Change(type="api_key.created", resource_id="x")


class Unreachable(Administration):
    """A database that may be down."""

    is_down = hangs = False
    looks = 0

    async def version(self) -> int:
        self.looks += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_down:
            raise StoreUnavailable("The database is down.")
        return await super().version()


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


async def test_without_keys_everybody_is_let_in(administration):
    keyring = Keyring(administration)
    await keyring.open()

    caller = keyring.authenticate({})

    assert (caller.key_id, caller.project_id, caller.may_administer) == (
        None, "proj_default", True,
    )  # fmt: skip


async def test_a_server_that_must_not_be_open_lets_nobody_in_without_keys(administration):
    keyring = Keyring(administration, may_be_open=False)
    await keyring.open()

    with pytest.raises(Unauthorized):
        keyring.authenticate({})


@pytest.mark.parametrize("value", ["Bearer sk-one", "bearer sk-one", "Bearer  sk-one "])
def test_a_key_of_the_settings_may_do_everything_and_never_shows(keyring, value):
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
def test_anything_else_is_kept_out(keyring, headers):
    with pytest.raises(Unauthorized) as caught:
        keyring.authenticate(headers)
    assert caught.value.status == 401


async def test_once_there_is_a_key_nobody_is_let_in_without(administration):
    keyring = Keyring(administration)
    await keyring.open()
    key = await create_key(administration, "first")
    await keyring.refresh()

    assert keyring.authenticate(bearing(key.value)).key_id == key.stored.id
    with pytest.raises(Unauthorized):
        keyring.authenticate({})


async def test_what_another_process_changes_is_known_after_the_next_look(administration, keyring):
    key = await create_key(administration, "new")
    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing(key.value))

    await keyring.refresh()
    assert keyring.authenticate(bearing(key.value)).project_id == "proj_default"
    await revoke_key(administration, key.stored.id)
    await keyring.refresh()
    with pytest.raises(Unauthorized):
        keyring.authenticate(bearing(key.value))


async def test_a_look_that_began_before_a_change_does_not_undo_it(administration, keyring):
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


async def test_keys_outlive_an_outage_and_unknown_ones_are_not_called_wrong(
    administration, keyring
):
    key = await create_key(administration, "app")
    await keyring.refresh()
    administration.is_down = True
    await keyring.refresh()

    assert keyring.authenticate(bearing(key.value)).key_id == key.stored.id
    with pytest.raises(Overloaded) as caught:
        keyring.authenticate(bearing("sk-made-meanwhile"))
    assert caught.value.retry_after_s


async def test_before_the_first_look_a_server_without_keys_is_not_open(administration):
    keyring = Keyring(administration)
    administration.is_down = True
    await keyring.open()

    with pytest.raises(Overloaded):
        keyring.authenticate({})
    with pytest.raises(Overloaded):
        keyring.authenticate(bearing("sk-one"))


async def test_a_key_is_good_until_its_time_is_over(administration):
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


async def test_an_admin_key_is_for_administering_only(administration, keyring):
    key = await create_key(administration, "ops", is_admin=True)
    await keyring.refresh()

    assert keyring.authenticate(bearing(key.value), administers=True).may_administer
    with pytest.raises(Forbidden):
        keyring.authenticate(bearing(key.value))


async def test_when_a_key_was_used_is_told_behind(administration, keyring):
    key = await create_key(administration, "app")
    await keyring.refresh()
    keyring.authenticate(bearing(key.value))
    await keyring.refresh()

    stored = await administration.key(key.stored.id, project_id="proj_default")
    assert stored.last_used_at is not None
    assert stored.hash != key.value


async def test_work_that_goes_on_without_its_caller_goes_on_as_long_as_his_key_is_good(
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


async def test_an_unknown_key_is_looked_up_before_it_is_called_wrong(administration, keyring):
    access = access_of(keyring)
    key = await create_key(administration, "made by another process")

    assert (await access.authenticate(bearing(key.value), WORKS)).key_id == key.stored.id
    with pytest.raises(Unauthorized):
        await access.authenticate(bearing("sk-guessed"), WORKS)
    administration.is_down = True
    with pytest.raises(Overloaded):  # at once, though the last look was well
        await access.authenticate(bearing("sk-guessed"), WORKS)


async def test_many_unknown_keys_share_their_looks(administration, keyring):
    access = access_of(keyring)
    before = administration.looks

    asked = [access.authenticate(bearing(f"sk-{number}"), WORKS) for number in range(50)]
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(one, Unauthorized) for one in answers)
    assert administration.looks - before <= 2


async def test_a_database_that_hangs_makes_an_unknown_key_wait_no_longer_than_so(
    administration, keyring, monkeypatch
):
    monkeypatch.setattr("llm_backend.access.authentication.keyring.POLL_TIMEOUT_S", 0.01)
    administration.hangs = True

    with pytest.raises(Overloaded):
        await access_of(keyring).authenticate(bearing("sk-guessed"), WORKS)
