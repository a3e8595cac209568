"""Voices: the list of those that can speak here, and whether local models can clone any."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.speech import EspeakModel, LocalVoice, Voice
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import Unsupported
from llm_backend.store import StoredVoice

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def list_audio_voices(services: Services, request: ApiRequest) -> Response:
    """`GET /audio/voices`: the voices of the local models that speak. Without a local voice the
    request is relayed, because some upstreams list their voices; without an upstream the answer is
    a 501 that says what to install."""
    models = [one for one in _voice_models(services) if one.missing is None]
    if not models and services.upstreams is None:
        models = _voice_models(services)[:1]  # its `voices` raises what to install
    if not models:
        return await relay(services, request)
    voices = [
        (model, voice)
        for model in models
        for voice in await cancel_on_disconnect(request, model.voices())
    ]
    if cloning := [one for one in models if isinstance(one, LocalVoice) and one.takes_samples]:
        with translate_store_errors("voice"):
            sampled = await services.voices.list()
            languages = await services.voices.consent_languages()
        voices += [
            (model, _sampled_voice(model, one, languages.get(one.consent_id, "")))
            for model in cloning
            for one in sampled
        ]
    answer: api.AudioVoiceList = {
        "object": "list",
        "voices": [
            {
                "id": voice.id,
                "name": voice.name,
                "language": voice.language,
                "gender": voice.gender,
                "model": model.name,
            }
            for model, voice in voices
            if services.access.admission.may_use(request.caller, model.name)
        ],
    }
    return JsonResponse(answer)


def takes_samples(services: Services) -> bool:
    """True if a local model clones voices."""
    return any(one.voice is not None and one.voice.takes_samples for one in services.registry.local)


async def relay_without_samples(services: Services, request: ApiRequest) -> Response:
    """Relays a request for models that clone voices. Raises `Unsupported` without an upstream."""
    if services.upstreams is None:
        raise Unsupported(
            "No model here clones voices; Pocket TTS and Qwen3-TTS can (docs/audio.md)."
        )
    return await relay(services, request)


def local_voice(services: Services, model: LocalModel) -> LocalVoice:
    """Returns the voice of a local model that speaks."""
    espeak = services.registry.espeak_model
    return LocalVoice(model, services.synthesizer, None if espeak is None else espeak.espeak)


def _voice_models(services: Services) -> list[EspeakModel | LocalVoice]:
    espeak = services.registry.espeak_model
    speaking = [one for one in services.registry.local if one.voice is not None]
    own = [local_voice(services, one) for one in speaking]
    return [*([] if espeak is None else [espeak]), *own]


def _sampled_voice(model: LocalVoice, sampled: StoredVoice, consent_language: str) -> Voice:
    language = model.language_of(sampled.id, consent_language)
    return Voice(id=sampled.id, name=sampled.name, language=language, gender=None, file="")
