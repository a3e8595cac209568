"""Speech: a text read aloud by a local voice or relayed, as a file or as events."""

import base64
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Send

from llm_backend.access import fairness_key
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.speech import EspeakModel, LocalVoice, SpeechRequest
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.audio.sampled_voices import with_sample
from llm_backend.controllers.audio.voices import local_voice
from llm_backend.controllers.generation.request_translation import check_supported_fields
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering.closing_stream import ClosingStream, prepend
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError, InvalidRequest
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

log = logging.getLogger(__name__)

FIELDS = {"input", "model", "voice", "response_format", "speed", "stream_format"}
MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Media types by `response_format`; `pcm` is signed, 16 bits, little-endian, 24 kHz, mono."""

_NO_TOKENS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


async def create_speech(services: Services, request: ApiRequest) -> Response:
    """`POST /audio/speech`"""
    return await answer_by_route(services, request, local=_speak_by_engine, voice=_speak)


async def _speak_by_engine(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    if model.voice is None:
        raise InvalidRequest(f"`{model.card.id}` {model.purpose}; it cannot speak.", param="model")
    return await _speak(services, request, local_voice(services, model))


async def _speak(
    services: Services, request: ApiRequest, model: EspeakModel | LocalVoice
) -> Response:
    body: api.CreateSpeechRequest = request.body
    check_supported_fields(body, FIELDS)
    speech = await with_sample(services, model, _speech(body))
    pieces = model.speak(speech, fairness_key=fairness_key(request.caller))
    if body.get("stream_format") == "sse":
        events = _events(pieces)
        return await cancel_on_disconnect(request, event_stream(events, ending=b""))
    first = await cancel_on_disconnect(request, anext(pieces, b""))
    return _AudioStream(pieces, prepend(first, pieces), media_type=MEDIA_TYPES[speech.format])


def _speech(body: "api.CreateSpeechRequest") -> SpeechRequest:
    if not body["input"].strip():
        raise InvalidRequest("`input` has no text to read.", param="input")
    voice = body["voice"]
    return SpeechRequest(
        text=body["input"],
        voice=voice if isinstance(voice, str) else voice["id"],
        speed=body.get("speed", 1),
        format=body.get("response_format", "mp3"),
    )


async def _events(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[JsonMapping, None]:
    """Yields the audio as events. Their usage is 0 tokens: speech is metered by characters."""
    async with aclosing(pieces):
        async for piece in pieces:
            yield {"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()}
    yield {"type": "speech.audio.done", "usage": _NO_TOKENS}


class _AudioStream(ClosingStream):
    """Stream of a file's bytes. If it fails, the terminating chunk of HTTP is not sent, so that
    clients detect the failure."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except ApiError as error:
            log.error("answer_cut", extra={"code": error.code})
