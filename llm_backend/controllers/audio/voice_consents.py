"""Voice consents: recordings in which people consent to the cloning of their voices.

A recording is stored as it was sent. Nothing checks what it says: the client that creates a voice
is responsible for that.
"""

import time
import uuid
from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING

from starlette.responses import Response

from llm_backend.access import fairness_key
from llm_backend.backends.recordings.recording import Recording, RecordingLimits
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.audio.recordings import RECORDING, check_codecs, read_recording
from llm_backend.controllers.audio.voices import relay_without_samples, takes_samples
from llm_backend.controllers.relay.local_or_upstream import local_or_upstream
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import (
    JsonResponse,
    deleted_response,
    list_response,
)
from llm_backend.controllers.rendering.page_query import DEFAULT_LIMIT
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.store import StoredVoiceConsent

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_KIND = "voice consent"
_FIELD = "recording"
_PIECE_BYTES = 256 * 1024


async def create_voice_consent(services: Services, request: ApiRequest) -> Response:
    """`POST /audio/voice_consents`: stored if a local model clones voices, else relayed."""
    if not takes_samples(services):
        return await relay_without_samples(services, request)
    check_codecs(_FIELD)
    limit_bytes = services.settings.voice_recording_limit_bytes
    seconds = services.settings.voice_consent_limit_s
    with services.temporary_files.open(RECORDING) as file:
        part, fields = await read_recording(
            services, request, file, field=_FIELD, limit_bytes=limit_bytes
        )
        limits = RecordingLimits(bytes=limit_bytes, seconds=seconds)
        recording = Recording(file=file, field=_FIELD, limits=limits)
        decoding = services.transcriber.decode(recording, fairness_key=fairness_key(request.caller))
        await cancel_on_disconnect(request, decoding)
        with translate_store_errors(_KIND):
            async with services.voices.blobs.writing(_pieces(file)) as blob:
                consent = StoredVoiceConsent(
                    id=f"cons_{uuid.uuid4().hex}",
                    created_at=int(time.time()),
                    name=str(fields["name"]),
                    language=str(fields["language"]),
                    media_type=part.media_type,
                    content=(blob,),
                )
                await services.voices.add_consent(consent)
    return JsonResponse(_consent_object(consent))


async def list_voice_consents(services: Services, request: ApiRequest) -> Response:
    """`GET /audio/voice_consents`: newest first."""
    if services.upstreams is not None and not takes_samples(services):
        return await relay(services, request)
    query: api.ListVoiceConsentsQuery = request.query
    with translate_store_errors(_KIND):
        page = await services.voices.list_consents(
            after=query.get("after"), limit=query.get("limit", DEFAULT_LIMIT)
        )
    return list_response(page, _consent_object)


@local_or_upstream(_KIND, "consent_id")
async def get_voice_consent(services: Services, request: ApiRequest) -> Response:
    """`GET /audio/voice_consents/{consent_id}`"""
    consent = await services.voices.get_consent(request.path["consent_id"])
    return JsonResponse(_consent_object(consent))


@local_or_upstream(_KIND, "consent_id")
async def update_voice_consent(services: Services, request: ApiRequest) -> Response:
    """`POST /audio/voice_consents/{consent_id}`: changes the name."""
    body: api.UpdateVoiceConsentRequest = request.body
    consent = await services.voices.rename_consent(request.path["consent_id"], body["name"])
    return JsonResponse(_consent_object(consent))


@local_or_upstream(_KIND, "consent_id")
async def delete_voice_consent(services: Services, request: ApiRequest) -> Response:
    """`DELETE /audio/voice_consents/{consent_id}`: a 409 while a voice depends on it."""
    consent_id = request.path["consent_id"]
    await services.voices.delete_consent(consent_id)
    return deleted_response(consent_id, "audio.voice_consent")


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):  # from the page cache
        yield piece


def _consent_object(consent: StoredVoiceConsent) -> "api.VoiceConsentResource":
    return {
        "id": consent.id,
        "object": "audio.voice_consent",
        "created_at": consent.created_at,
        "name": consent.name,
        "language": consent.language,
    }
