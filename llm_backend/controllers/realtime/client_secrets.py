"""Client secrets: short-lived keys that open one realtime session, made here or by an upstream."""

import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from starlette.responses import Response

from llm_backend.access.authentication.api_keys import KEY_BYTES, hash_key
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.controllers.realtime.beta_sessions import (
    realtime_answer,
    session_from,
    transcription_answer,
    translate_error_names,
)
from llm_backend.controllers.realtime.local_models import capabilities_of, local_session
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.controllers.relay.routing import relay_operation
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest, TooLarge, Unauthorized
from llm_backend.exact_json import dumps
from llm_backend.json_types import JsonMapping
from llm_backend.store.administration import StoredSecret

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

PREFIX = "ek_"
"""Prefix of client secrets."""

_DEFAULT_S = 600
_SESSION_BYTES = 256 * 1024
_SCHEMAS = {
    "realtime": "RealtimeSessionCreateRequestGA",
    "transcription": "RealtimeTranscriptionSessionCreateRequestGA",
}


@dataclass(frozen=True, kw_only=True)
class _Secret:
    """A new client secret, with its value, and the session that it opens."""

    value: str
    expires_at: int  # unix seconds
    config: SessionConfig


async def create_realtime_client_secret(services: Services, request: ApiRequest) -> Response:
    """`POST /realtime/client_secrets`"""
    body: api.RealtimeCreateClientSecretRequest = request.body
    session: JsonMapping = body.get("session") or {}
    only_transcribes = session.get("type") == "transcription"
    model = _transcription_model(session) if only_transcribes else session.get("model")
    default = await _default(services, model, only_transcribes=only_transcribes)
    if default is None:
        return await _relay(services, request, param="session.model")
    secret = await _create(services, request, default.apply(session), body.get("expires_after"))
    answer = {
        "value": secret.value,
        "expires_at": secret.expires_at,
        "session": {**secret.config.public_fields, "id": _session_id()},
    }
    return JsonResponse(cast("api.RealtimeCreateClientSecretResponse", answer))


async def create_realtime_session(services: Services, request: ApiRequest) -> Response:
    """`POST /realtime/sessions`"""
    body: api.RealtimeSessionCreateRequest = request.body
    default = await _default(services, body.get("model"), only_transcribes=False)
    if default is None:
        return await _relay(services, request, param="model")
    secret = await _create_beta(services, request, default, "realtime", "expires_after")
    answer = {
        "id": _session_id(),
        "expires_at": secret.expires_at,
        "client_secret": {"value": secret.value, "expires_at": secret.expires_at},
        **realtime_answer(secret.config),
    }
    return JsonResponse(cast("api.RealtimeSessionCreateResponse", answer))


async def create_realtime_transcription_session(
    services: Services, request: ApiRequest
) -> Response:
    """`POST /realtime/transcription_sessions`"""
    body: api.RealtimeTranscriptionSessionCreateRequest = request.body
    model = (body.get("input_audio_transcription") or {}).get("model")
    default = await _default(services, model, only_transcribes=True)
    if default is None:
        return await _relay(services, request, param="input_audio_transcription.model")
    secret = await _create_beta(services, request, default, "transcription", "expires_at")
    answer = {
        "client_secret": {"value": secret.value, "expires_at": secret.expires_at},
        **transcription_answer(secret.config),
    }
    return JsonResponse(cast("api.RealtimeTranscriptionSessionCreateResponse", answer))


async def _default(
    services: Services, model: str | None, *, only_transcribes: bool
) -> SessionConfig | None:
    """Returns the default configuration of a session that this server answers; None if an upstream
    answers it, or if no model is named. Raises `ApiError`."""
    has_transcriber = services.settings.realtime_transcription_model is not None
    if only_transcribes and model is None and not has_transcriber:
        return None  # a secret needs its model now; a socket may name it later
    return await local_session(services, model, only_transcribes=only_transcribes)


async def _create_beta(
    services: Services, request: ApiRequest, default: SessionConfig, type: str, expiry: str
) -> _Secret:
    """Stores a secret for a session of this type, configured by a body of the beta API, in which
    `client_secret[expiry]` is the lifetime. Raises `ApiError` that names the body's field."""
    given: JsonMapping = request.body.get("client_secret") or {}
    refuse_unsupported_fields(given, {expiry}, by="realtime sessions", path="client_secret")
    session = session_from(request.body, type)
    with translate_error_names():
        services.validators.component(_SCHEMAS[type]).check_request(session)
        config = default.apply(session)
    return await _create(services, request, config, given.get(expiry))


async def _relay(services: Services, request: ApiRequest, *, param: str) -> Response:
    """Relays the request. Raises `InvalidRequest` without an upstream, as no model is named."""
    if services.upstreams is None:
        raise InvalidRequest(
            "A session needs the `model` that answers it; see GET /v1/models.",
            param=param,
            code="missing_required_parameter",
        )
    services.access.admission.check_unmetered_use(request.caller)
    return await relay_operation(services, request)


async def _create(
    services: Services, request: ApiRequest, config: SessionConfig, expiry: JsonMapping | None
) -> _Secret:
    """Stores a new secret of the caller for a session. Raises `TooLarge`, and `RateLimited` if the
    caller's key has too many."""
    if len(dumps(config.fields)) > _SESSION_BYTES:
        raise TooLarge(f"The session has more than {_SESSION_BYTES:,} bytes.", param="session")
    value = f"{PREFIX}{secrets.token_urlsafe(KEY_BYTES)}"
    lifetime_s = int((expiry or {}).get("seconds", _DEFAULT_S))
    stored = StoredSecret(
        hash=hash_key(value).hex(),
        expires_at=int(time.time()) + lifetime_s,
        key_id=request.caller.key_id,
        session=config.fields,
    )
    with translate_store_errors("client secret"):
        limit = services.settings.realtime_client_secrets_limit
        await services.access.client_secrets.add(stored, limit=limit)
    return _Secret(value=value, expires_at=stored.expires_at, config=config)


def _session_id() -> str:
    return f"sess_{uuid.uuid4().hex[:24]}"


def _transcription_model(session: JsonMapping) -> str | None:
    audio_input = (session.get("audio") or {}).get("input") or {}
    model: str | None = (audio_input.get("transcription") or {}).get("model")
    return model


async def find_secret(services: Services, headers: Mapping[str, str]) -> StoredSecret | None:
    """Returns the client secret in the headers of a socket; None if they have an API key instead.
    Raises `Unauthorized` for an unknown or expired one."""
    _, _, key = headers.get("authorization", "").partition(" ")
    if not key.strip().startswith(PREFIX):
        return None
    with translate_store_errors("client secret"):
        secret = await services.access.client_secrets.find(hash_key(key.strip()).hex())
    if secret is None:
        raise Unauthorized("The client secret is not known to this server, or has expired.")
    return secret


def session_of(services: Services, secret: StoredSecret, model: str | None) -> SessionConfig:
    """Returns the session that a secret is bound to. Raises `InvalidRequest` for another model."""
    only_transcribes = secret.session["type"] == "transcription"
    bound = _transcription_model(secret.session) if only_transcribes else secret.session["model"]
    if model not in (None, bound):
        raise InvalidRequest(f"The client secret is for the model `{bound}`.", param="model")
    return SessionConfig(fields=secret.session, capabilities=capabilities_of(services))
