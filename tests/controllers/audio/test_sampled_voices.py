"""Voices by a sample without a model that takes them: an upstream's, or refused."""

from typing import Any

import openai
import pytest

from tests.controllers.administration.conftest import relaying_client, served
from tests.media_files import wav

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
