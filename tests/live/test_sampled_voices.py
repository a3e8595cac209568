"""Cloned voices, created, spoken in and deleted by the official client on a served process."""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import yaml
from numpy.typing import NDArray

from tests.engine.pocket_voice import RATE_HZ, write_pocket_voice
from tests.engine.qwen_voice import write_qwen_voice
from tests.media_files import wav
from tests.missing import missing
from tests.realtime_client import Events, message, opened
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

ROOT = "sk-root"
TEXT = "One two. Three four!"
LOW = wav(2, pitch=0.05, rate=RATE_HZ)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project's client and its voice, a client of another project, and the audio of `TEXT` before
    the server was restarted."""

    served: Served
    key: str
    client: openai.OpenAI
    other_client: openai.OpenAI
    consent_id: str
    voice_id: str
    audio_before: bytes

    def speak(self, voice: Any, **fields: Any) -> bytes:
        return speak(self.client, voice, **fields)


def client_of(served: Served, key: str) -> openai.OpenAI:
    return StrictOpenAI(
        base_url=served.base_url, api_key=key, admin_api_key=key, max_retries=0, timeout=60
    )


def speak(client: openai.OpenAI, voice: Any, **fields: Any) -> bytes:
    body = {"model": "pocket", "input": TEXT, "response_format": "pcm", "voice": voice, **fields}
    return client.audio.speech.create(**body).content


def make_consent(client: openai.OpenAI, **fields: Any) -> Any:
    body: Any = {"name": "Low", "language": "en-US", "recording": ("yes.wav", wav(1)), **fields}
    return client.audio.voice_consents.create(**body)


def make_voice(client: openai.OpenAI, consent_id: str, **fields: Any) -> Any:
    body: Any = {"name": "Low", "consent": consent_id, "audio_sample": ("low.wav", LOW)} | fields
    return client.audio.voices.create(**body)


def consents_of(client: openai.OpenAI) -> list[Any]:
    return list(client.audio.voice_consents.list())


def make_key(client: openai.OpenAI, name: str) -> str:
    projects = client.admin.organization.projects
    project = projects.create(name=name)
    return projects.service_accounts.create(project.id, name=name).api_key.value


@pytest.fixture
def another(restarted: "Project") -> Iterator[openai.OpenAI]:
    """A client of a project of its own, without a voice."""
    with client_of(restarted.served, ROOT) as root:
        key = make_key(root, "another")
    with client_of(restarted.served, key) as client:
        yield client


@pytest.fixture(scope="module")
def restarted(tmp_path_factory) -> Iterator[Project]:
    """A project whose voice was created before the server was started again."""
    if find_spec("av") is None:
        missing("the extra is not installed: pip install 'llm-backend[audio]'")
    folder: Path = tmp_path_factory.mktemp("voices")
    model, projector = write_pocket_voice(folder / "pocket")
    qwen = write_qwen_voice(folder / "qwen")
    (folder / "pocket" / "voices").mkdir()
    (folder / "pocket" / "voices" / "low.wav").write_bytes(LOW)
    (folder / "pocket" / "voices" / "high.wav").write_bytes(wav(2, pitch=0.5, rate=RATE_HZ))
    config = {
        "models": [{"id": "pocket", "path": str(model), "mmproj": str(projector)},
                   {"id": "qwen", "path": str(qwen[0]), "mmproj": str(qwen[1])}, "builtin"],
        "threads": 1, "voices_limit": 2, "voice_recording_limit_bytes": 400_000,
        "voice_sample_limit_s": 5, "voice_consent_limit_s": 3,
        "realtime_speech_model": "pocket",
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    flags = ("--config", str(folder / "config.yaml"))
    environment = {"LLM_BACKEND_API_KEYS": ROOT}
    with (
        serve(folder / "data", *flags, environment=environment) as served,
        client_of(served, ROOT) as root,
    ):
        keys = [make_key(root, name) for name in ("one", "two")]
        with client_of(served, keys[0]) as client:
            consent = make_consent(client)
            voice = make_voice(client, consent.id)
            audio = speak(client, {"id": voice.id})
    with (
        serve(folder / "data", *flags, environment=environment) as served,
        client_of(served, keys[0]) as client,
        client_of(served, keys[1]) as other,
    ):
        yield Project(
            served=served, key=keys[0], client=client, other_client=other, consent_id=consent.id,
            voice_id=voice.id, audio_before=audio,
        )  # fmt: skip


def test_a_voice_sounds_as_its_sample_and_outlives_the_server(restarted):
    by_id = restarted.speak(restarted.voice_id)
    low, high = (pcm(restarted.speak(speaker)) for speaker in ("low", "high"))

    assert restarted.audio_before == by_id
    assert np.abs(pcm(by_id) - low).max() < 0.05  # decoded and rounded otherwise
    assert np.abs(pcm(by_id) - high).max() > 0.2


def test_a_voice_speaks_by_each_model_in_the_language_of_its_consent(restarted, another):
    consent = make_consent(another, language="sv-SE")
    swedish = make_voice(another, consent.id)
    audio = restarted.speak(restarted.voice_id, model="qwen")
    with pytest.raises(openai.BadRequestError, match="does not speak `sv-SE`") as refused:
        speak(another, swedish.id, model="qwen")

    assert pcm(audio).std() > 0.01
    assert refused.value.param == "voice"


def pcm(audio: bytes) -> NDArray[np.float64]:
    return np.frombuffer(audio, "<i2") / 32767


def test_voices_are_listed_for_their_project_alone(restarted):
    def listed(client: openai.OpenAI) -> list[dict[str, Any]]:
        voices: Any = client.get("/audio/voices", cast_to=object)
        return [one for one in voices["voices"] if one["id"].startswith("voice_")]

    mine = [(one["id"], one["name"], one["model"]) for one in listed(restarted.client)]

    assert mine == [(restarted.voice_id, "Low", model) for model in ("pocket", "qwen")]
    assert listed(restarted.other_client) == []


def test_a_voice_and_its_consent_are_unknown_to_another_project(restarted):
    other = restarted.other_client
    consents = other.audio.voice_consents
    for attempt in (
        lambda: other.audio.voices.delete(restarted.voice_id),
        lambda: consents.retrieve(restarted.consent_id),
        lambda: consents.update(restarted.consent_id, name="Mine"),
        lambda: consents.delete(restarted.consent_id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError) as refused:
        speak(other, {"id": restarted.voice_id})
    with pytest.raises(openai.BadRequestError) as refused_consent:
        make_voice(other, restarted.consent_id)

    assert consents_of(other) == []
    assert refused.value.param == "voice"
    assert refused_consent.value.param == "consent"


@pytest.mark.parametrize("is_object", [True, False])
def test_a_realtime_session_speaks_in_a_voice_by_a_sample(restarted, is_object):
    voice: Any = {"id": restarted.voice_id} if is_object else restarted.voice_id
    headers = {"authorization": f"Bearer {restarted.key}"}
    with opened(restarted.served, additional_headers=headers) as session:
        events = session.answer(message("Hello!"), audio={"output": {"voice": voice}})
        other = session.answer(message("Hello!"), audio={"output": {"voice": "voice_unknown"}})

    audio = b"".join(map(base64.b64decode, deltas(events)))
    assert events[-1]["response"]["status"] == "completed"
    assert events[-1]["response"]["audio"]["output"]["voice"] == restarted.voice_id
    assert pcm(audio).std() > 0.01
    assert [one["error"]["param"] for one in other if one["type"] == "error"] == ["voice"]


def deltas(events: Events) -> list[str]:
    return [one["delta"] for one in events if one["type"] == "response.output_audio.delta"]


def test_a_consent_is_renamed_and_deleted_after_its_voices(another):
    consents = another.audio.voice_consents
    consent = make_consent(another)
    voice = make_voice(another, consent.id)
    renamed = consents.update(consent.id, name="Lower")
    with pytest.raises(openai.ConflictError):
        consents.delete(consent.id)
    removed = another.audio.voices.delete(voice.id)
    with pytest.raises(openai.BadRequestError):
        speak(another, voice.id)

    assert (renamed.name, consents.retrieve(consent.id).name) == ("Lower", "Lower")
    assert (removed.id, removed.deleted) == (voice.id, True)
    assert consents.delete(consent.id).deleted
    assert consents_of(another) == []


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"type": "prompt"}, 400, "type"),
        ({"audio_sample": ("a.wav", b"RIFF no audio")}, 400, "audio_sample"),
        ({"audio_sample": ("a.wav", wav(0.5, rate=RATE_HZ))}, 400, "audio_sample"),
        ({"audio_sample": ("a.wav", wav(6))}, 400, "audio_sample"),
        ({"audio_sample": ("a.wav", wav(2, pitch=0))}, 400, "audio_sample"),
        ({"audio_sample": ("a.wav", bytes(400_001))}, 413, "audio_sample"),
        ({"audio_sample": ("a.wav", b"")}, 400, "audio_sample"),
        ({"consent": "cons_unknown"}, 400, "consent"),
        ({"name": ""}, 400, "name"),
        ({"name": "a" * 257}, 400, "name"),
    ],
)
def test_a_bad_voice_is_refused_by_its_field(restarted, fields, status, param):
    with pytest.raises(openai.APIStatusError) as refused:
        make_voice(restarted.client, restarted.consent_id, **fields)

    assert (refused.value.status_code, refused.value.param) == (status, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"recording": ("a.wav", b"no audio")}, "recording"),
        ({"recording": ("a.wav", wav(4))}, "recording"),
        ({"language": ""}, "language"),
    ],
)
def test_a_bad_consent_is_refused_by_its_field(restarted, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        make_consent(restarted.client, **fields)

    assert refused.value.param == param


def test_the_number_of_voices_is_bounded(another):
    consent = make_consent(another)
    for _ in range(2):
        make_voice(another, consent.id)

    with pytest.raises(openai.BadRequestError, match="voices_limit"):
        make_voice(another, consent.id)
    with pytest.raises(openai.BadRequestError, match="voices_limit"):
        make_voice(another, consent.id, audio_sample=("a.wav", b"not decoded"))


def test_fields_of_the_document_are_required(restarted):
    form: Callable[..., httpx.Response] = lambda data, files: httpx.post(  # noqa: E731
        f"{restarted.served.base_url}/audio/voices", data=data, files=files,
        headers={"authorization": f"Bearer {restarted.key}"},
    )  # fmt: skip
    sample = {"audio_sample": ("low.wav", LOW, "audio/wav")}
    without_consent = form({"name": "Low"}, sample)
    without_sample = form({"name": "Low", "consent": restarted.consent_id}, {})

    assert (without_consent.status_code, without_consent.json()["error"]["param"]) == (
        400, "consent",
    )  # fmt: skip
    assert without_sample.status_code in (400, 415)
