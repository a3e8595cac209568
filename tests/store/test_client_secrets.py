"""Client secrets are found until they expire."""

from dataclasses import replace

from llm_backend.store import Database
from llm_backend.store.administration import ClientSecrets, StoredSecret
from tests.clock import Clock

SECRET = StoredSecret(hash="a1", expires_at=110, key_id=None, session={"model": "m"})


async def test_an_expired_secret_is_not_found_and_deleted(database: Database):
    clock = Clock(100)
    secrets = ClientSecrets(database, clock=clock)
    later = replace(SECRET, hash="b2", expires_at=120, key_id="key_1")
    for one in (SECRET, later):
        await secrets.add(one)
    found = await secrets.find("a1")
    clock.now = 110
    expired = await secrets.find("a1")
    await secrets.expire()
    clock.now = 100

    assert found == SECRET
    assert expired is None
    assert [await secrets.find(one) for one in ("a1", "b2")] == [None, later]
