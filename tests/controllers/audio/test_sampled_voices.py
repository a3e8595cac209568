"""Cloned voices without a model that takes them, or without the extra: an upstream's, refused,
or deleted."""

import sys
from importlib.util import find_spec
from typing import Any

import httpx
import openai
import pytest

from tests.controllers.administration.conftest import relaying_client, served
from tests.engine.pocket_voice import write_pocket_voice
from tests.engine.qwen_voice import write_qwen_voice
from tests.media_files import wav
from tests.missing import missing

VOICE: Any = {"name": "Anna", "consent": "cons_1", "audio_sample": ("anna.wav", wav(2))}
CONSENT: Any = {"name": "Anna", "language": "en", "recording": ("yes.wav", wav(1))}


async def test_voices_and_consents_are_relayed_without_a_model_that_takes_samples(tmp_path):
    async with relaying_client(tmp_path) as client:
        audio = client().audio
        for attempt in (
            audio.voices.create(**VOICE),
            audio.voice_consents.create(**CONSENT),
            audio.voice_consents.retrieve("cons_1"),
            audio.voice_consents.update("cons_1", name="Bert"),
        ):
            with pytest.raises(openai.NotFoundError, match="Nothing here"):  # the upstream's words
                await attempt


async def test_voices_and_consents_are_refused_without_a_model_that_takes_samples(tmp_path):
    async with served(tmp_path) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client().audio.voices.create(**VOICE)
        with pytest.raises(openai.APIStatusError) as refused_consent:
            await client().audio.voice_consents.create(**CONSENT)
        listed = await client().audio.voice_consents.list()
        with pytest.raises(openai.NotFoundError):
            await client().audio.voices.delete("voice_1")

    assert (refused.value.status_code, refused_consent.value.status_code) == (501, 501)
    assert "Pocket TTS" in refused_consent.value.message
    assert listed.data == []


async def test_a_voice_and_its_consent_are_deleted_where_the_extra_is_not_installed(
    tmp_path, monkeypatch
):
    if find_spec("av") is None:
        missing("the extra is not installed: pip install 'llm-backend[audio]'")
    model, projector = write_pocket_voice(tmp_path / "pocket")
    entry = {"path": str(model), "mmproj": str(projector), "load": "demand"}
    async with served(tmp_path, models=[entry]) as client:
        audio = client().audio
        consent = await audio.voice_consents.create(**CONSENT)
        voice = await audio.voices.create(**{**VOICE, "consent": consent.id})
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(openai.APIStatusError) as refused:
            await audio.voices.create(**{**VOICE, "consent": consent.id})
        deleted = await audio.voices.delete(voice.id)
        deleted_consent = await audio.voice_consents.delete(consent.id)
        with pytest.raises(openai.NotFoundError):
            await audio.voices.delete(voice.id)

    assert (refused.value.status_code, "llm-backend[audio]" in refused.value.message) == (501, True)
    assert (deleted.deleted, deleted_consent.deleted) == (True, True)


async def test_voices_of_a_model_of_several_languages_are_listed_with_their_own(tmp_path):
    if find_spec("av") is None:
        missing("the extra is not installed: pip install 'llm-backend[audio]'")
    model, projector = write_qwen_voice(tmp_path / "qwen")
    samples = model.parent / "voices"
    samples.mkdir()
    for name in ("anna.de", "bert"):
        (samples / f"{name}.wav").write_bytes(wav(2))
    entry = {"path": str(model), "mmproj": str(projector), "load": "demand"}
    async with served(tmp_path, models=[entry]) as client:
        audio = client().audio
        consent = await audio.voice_consents.create(**{**CONSENT, "language": "de-DE"})
        cloned = await audio.voices.create(**{**VOICE, "consent": consent.id})
        answer = await client().get("/audio/voices", cast_to=httpx.Response)
    languages = {one["id"]: one["language"] for one in answer.json()["voices"]}

    assert (languages["anna.de"], languages["bert"]) == ("german", "english")
    assert (languages["alloy"], languages["ash"]) == ("german", "english")
    assert languages[cloned.id] == "german"
