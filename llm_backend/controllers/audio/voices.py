"""Names of the voices that can speak here."""

from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.contract.client_disconnect import run_while_connected
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def list_audio_voices(services: Services, request: ApiRequest) -> Response:
    """`GET /audio/voices`: the voices of the local model that speaks. Without a local voice the
    request is relayed, because some upstreams list their voices; without an upstream the answer is
    a 501 that says what to install."""
    voice = services.registry.voice
    if voice is None or (services.upstreams is not None and not voice.is_installed):
        return await relay(services, request)
    voices = await run_while_connected(request, voice.voices())
    if not services.access.admission.may_use(request.caller, voice.card.id):
        voices = ()
    answer: api.AudioVoiceList = {
        "object": "list",
        "voices": [
            {
                "id": one.id,
                "name": one.name,
                "language": one.language,
                "gender": one.gender,
                "model": voice.card.id,
            }
            for one in voices
        ],
    }
    return JsonResponse(answer)
