"""Cloned voices: creation, deletion, and their samples in requests for speech."""

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access import fairness_key
from llm_backend.backends.recordings.recording import Recording, RecordingLimits
from llm_backend.backends.speech import EspeakModel, LocalVoice, SpeechRequest
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.audio.recordings import RECORDING, check_codecs, read_recording
from llm_backend.controllers.audio.voices import relay_without_samples, takes_samples
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.rendering.closing_stream import one_piece
from llm_backend.controllers.rendering.json_response import JsonResponse, deleted_response
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest
from llm_backend.model_files import VOICE_SAMPLE_RATE_HZ
from llm_backend.store import Missing, StoredVoice

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_KIND = "voice"
_PREFIX = "voice_"
_FIELD = "audio_sample"
_MIN_BYTES = VOICE_SAMPLE_RATE_HZ * 2  # one second of 16-bit samples


async def create_voice(services: Services, request: ApiRequest) -> Response:
    """`POST /audio/voices`: stores a sample for the local models that clone voices. Without such a
    model the request is relayed."""
    if not takes_samples(services):
        return await relay_without_samples(services, request)
    check_codecs(_FIELD)
    limit_bytes = services.settings.voice_recording_limit_bytes
    with services.temporary_files.open(RECORDING) as file:
        _, fields = await read_recording(
            services, request, file, field=_FIELD, limit_bytes=limit_bytes
        )
        name, consent_id = str(fields["name"]), str(fields["consent"])
        await _check_consent(services, consent_id)
        with translate_store_errors(_KIND):
            await services.voices.check_capacity()  # before the sample is decoded
        seconds = services.settings.voice_sample_limit_s
        recording = Recording(
            file=file,
            field=_FIELD,
            limits=RecordingLimits(bytes=limit_bytes, seconds=seconds),
            rate_hz=VOICE_SAMPLE_RATE_HZ,
        )
        decoding = services.transcriber.decode(recording, fairness_key=fairness_key(request.caller))
        samples = await cancel_on_disconnect(request, decoding)
    if len(samples) < _MIN_BYTES:
        message = f"The sample is shorter than a second; it must last from 1 to {seconds} s."
        raise InvalidRequest(message, param=_FIELD, code="audio_too_short")
    with translate_store_errors("voice consent"):
        async with services.voices.blobs.writing(one_piece(samples)) as blob:
            voice = StoredVoice(
                id=f"{_PREFIX}{uuid.uuid4().hex}",
                created_at=int(time.time()),
                name=name,
                consent_id=consent_id,
                content=(blob,),
            )
            await services.voices.add(voice)
    answer: api.VoiceResource = {
        "id": voice.id,
        "object": "audio.voice",
        "created_at": voice.created_at,
        "name": voice.name,
        "type": "audio_sample",
    }
    return JsonResponse(answer)


@local_or_upstream(_KIND, "voice_id")
async def delete_audio_voice(services: Services, request: ApiRequest) -> Response:
    """`DELETE /audio/voices/{voice_id}`: also deletes its sample."""
    voice_id = request.path["voice_id"]
    await services.voices.delete(voice_id)
    return deleted_response(voice_id, "audio.voice.deleted")


async def with_sample(
    services: Services, model: EspeakModel | LocalVoice, speech: SpeechRequest
) -> SpeechRequest:
    """Returns the request with the sample of its voice, if that is a cloned one. Raises
    `InvalidRequest` for a cloned voice that does not exist."""
    voice_id = speech.voice
    if not voice_id.startswith(_PREFIX) or not isinstance(model, LocalVoice):
        return speech
    if not model.takes_samples or model.has_speaker(voice_id):
        return speech
    with translate_store_errors(_KIND):
        try:
            voice = await services.voices.get(voice_id)
            consent = await services.voices.get_consent(voice.consent_id)
        except Missing as missing:
            message = f"No voice has the id `{missing.id}`. See GET /v1/audio/voices."
            raise InvalidRequest(message, param="voice") from missing

    async def read() -> bytes:
        with translate_store_errors(_KIND):
            return await services.voices.read(voice)

    return replace(speech, read_sample=read, language=consent.language)


async def _check_consent(services: Services, consent_id: str) -> None:
    """Raises `InvalidRequest` for a consent that does not exist, before the sample is decoded."""
    with translate_store_errors("voice consent"):
        try:
            await services.voices.get_consent(consent_id)
        except Missing as missing:
            message = f"No voice consent has the id `{missing.id}`."
            raise InvalidRequest(message, param="consent") from missing
