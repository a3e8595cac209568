"""Cloned voices and their consents: limits, dependence, bytes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm_backend.store import (
    Blobs,
    Bucket,
    ConsentInUse,
    Database,
    FilesFull,
    Missing,
    Owner,
    StoredVoice,
    StoredVoiceConsent,
    VoicesFull,
    VoiceStore,
    as_owner,
    recount_files,
)
from llm_backend.store.files import file_byte_total

NOW = 1_700_000_000


@pytest.fixture
def voices(database: Database, tmp_path: Path) -> VoiceStore:
    blobs = Blobs(database, Bucket(tmp_path.as_uri()))
    return VoiceStore(database, blobs, limit=2, limit_bytes=100)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def add_consent(voices: VoiceStore, id: str, size_bytes: int = 10) -> None:
    async with voices.blobs.writing(pieces(bytes(size_bytes))) as blob:
        await voices.add_consent(
            StoredVoiceConsent(
                id=id, created_at=NOW, name="Anna", language="de", media_type="audio/wav",
                content=(blob,),
            )
        )  # fmt: skip


async def add_voice(voices: VoiceStore, id: str, consent: str, data: bytes = b"audio") -> None:
    async with voices.blobs.writing(pieces(data)) as blob:
        await voices.add(
            StoredVoice(id=id, created_at=NOW, name="Anna", consent_id=consent, content=(blob,))
        )


async def test_a_voice_has_its_sample_until_it_is_deleted(voices, database):
    await add_consent(voices, "cons_1")
    await add_voice(voices, "voice_1", "cons_1")
    found = await voices.get("voice_1")
    sample = await voices.read(found)
    counted = await recount_files(database)
    await voices.delete("voice_1")
    await voices.delete_consent("cons_1")

    assert (sample, counted) == (b"audio", (15, 15))
    assert await database.read(file_byte_total.stored_bytes) == 0
    with pytest.raises(Missing):
        await voices.get("voice_1")


async def test_a_consent_stays_as_long_as_a_voice_depends_on_it(voices):
    await add_consent(voices, "cons_1")
    await add_voice(voices, "voice_1", "cons_1")

    with pytest.raises(ConsentInUse, match="voice_1"):
        await voices.delete_consent("cons_1")
    with pytest.raises(Missing) as missing:
        await add_voice(voices, "voice_2", "cons_2")
    assert missing.value.id == "cons_2"
    assert [one.id for one in await voices.list()] == ["voice_1"]


async def test_voices_and_consents_of_each_project_are_bounded(voices):
    for project in ("proj_a", "proj_b"):
        with as_owner(Owner(id=project)):
            for number in range(2):
                await add_consent(voices, f"cons_{project}_{number}")
                await add_voice(voices, f"voice_{project}_{number}", f"cons_{project}_0")
            with pytest.raises(VoicesFull):
                await add_consent(voices, "cons_more")
            with pytest.raises(VoicesFull):
                await add_voice(voices, "voice_more", f"cons_{project}_0")
            assert len(await voices.list()) == 2


async def test_voices_count_as_files_do(voices, database):
    with pytest.raises(FilesFull):
        await add_consent(voices, "cons_1", 101)
    await add_consent(voices, "cons_1", 99)
    with pytest.raises(FilesFull):
        await add_voice(voices, "voice_1", "cons_1")

    assert await database.read(file_byte_total.stored_bytes) == 99


async def test_voices_of_a_project_are_hidden_from_others(voices):
    with as_owner(Owner(id="proj_a")):
        await add_consent(voices, "cons_1")
        await add_voice(voices, "voice_1", "cons_1")
    with as_owner(Owner(id="proj_b")):
        for attempt in (
            voices.get("voice_1"), voices.delete("voice_1"), voices.get_consent("cons_1"),
            voices.rename_consent("cons_1", "Mine"), voices.delete_consent("cons_1"),
            add_voice(voices, "voice_2", "cons_1"),
        ):  # fmt: skip
            with pytest.raises(Missing):
                await attempt
        assert await voices.list() == []
        assert (await voices.list_consents(after=None, limit=5)).items == []
