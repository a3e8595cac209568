"""From text to speech to text: the local voice is heard by a model that knows its words."""

import random
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serving import serve
from tests.spoken_words import FOLDER, WORDS, count_word_errors
from tests.strict_sdk import StrictOpenAI
from tests.tone_voice import require_voices
from tests.voice import PROGRAM, require_voice


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[openai.OpenAI]:
    require_voice()
    require_voices()
    aliases = ("--alias", f"whisper-1={FOLDER.name}")
    environment = {"LLM_BACKEND_VOICE_PROGRAM": PROGRAM, "LLM_BACKEND_THREADS": "1"}
    folder = tmp_path_factory.mktemp("spoken")
    with (
        serve(folder, "--model", str(FOLDER), *aliases, environment=environment) as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        yield client


def heard(client: openai.OpenAI, text: str, voice: str, format: Any) -> str:
    speech = client.audio.speech.create(
        model="builtin-voice", voice=voice, input=text, response_format=format
    )
    file = (f"speech.{format}", speech.content)
    return client.audio.transcriptions.create(model="whisper-1", file=file).text


def test_a_sentence_is_heard_as_it_was_spoken(client):
    text = "good morning please open the left door"

    assert heard(client, text, "alloy", "wav") == text


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "opus", "aac"])
def test_few_words_are_heard_wrong_in_any_voice_and_format(client, format: str):
    rng = random.Random(format)
    errors = 0
    for voice in ("alloy", "ash", "coral", "fable", "nova", "onyx"):
        words = rng.choices(WORDS, k=8)
        errors += count_word_errors(words, heard(client, " ".join(words), voice, format).split())

    assert errors <= 4, f"{errors} of 48 words"
