"""Client secrets are found until they expire."""

from dataclasses import replace

import pytest

from llm_backend.store import Database, SecretsFull
from llm_backend.store.administration import ClientSecrets, StoredSecret
from tests.clock import Clock

SECRET = StoredSecret(hash="a1", expires_at=110, key_id=None, session={"model": "m"})


async def test_an_expired_secret_is_not_found_and_deleted(database: Database):
    clock = Clock(100)
    secrets = ClientSecrets(database, clock=clock)
    later = replace(SECRET, hash="b2", expires_at=120, key_id="key_1")
    for one in (SECRET, later):
        await secrets.add(one, limit=1)
    found = await secrets.find("a1")
    clock.now = 110
    expired = await secrets.find("a1")
    await secrets.expire()
    clock.now = 100

    assert found == SECRET
    assert expired is None
    assert [await secrets.find(one) for one in ("a1", "b2")] == [None, later]


@pytest.mark.parametrize("key_id", [None, "key_1"])
async def test_a_key_has_so_many_secrets_until_one_expires(database: Database, key_id: str | None):
    clock = Clock(100)
    secrets = ClientSecrets(database, clock=clock)
    mine = replace(SECRET, key_id=key_id)
    later = replace(mine, expires_at=120)
    await secrets.add(replace(later, hash="other", key_id="key_2"), limit=1)
    await secrets.add(mine, limit=2)
    await secrets.add(replace(later, hash="b2"), limit=2)
    with pytest.raises(SecretsFull):
        await secrets.add(replace(later, hash="c3"), limit=2)
    clock.now = 110
    await secrets.add(replace(later, hash="c3"), limit=2)

    assert await secrets.find("c3") is not None
