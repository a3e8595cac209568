"""Client secrets: short-lived keys that open one realtime session, made here or by an upstream."""

import secrets
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from starlette.responses import Response

from llm_backend.access.authentication.new_key import KEY_BYTES, hash_key
from llm_backend.contract.request import ApiRequest
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


async def create_realtime_client_secret(services: Services, request: ApiRequest) -> Response:
    """`POST /realtime/client_secrets`"""
    body: api.RealtimeCreateClientSecretRequest = request.body
    session: JsonMapping = body.get("session") or {}
    only_transcribes = session.get("type") == "transcription"
    model = _transcription_model(session) if only_transcribes else session.get("model")
    default = None
    if model is not None:
        default = local_session(services, model, only_transcribes=only_transcribes)
    if default is None:
        if services.upstreams is None:
            raise InvalidRequest(
                "A session needs the `model` that answers it; see GET /v1/models.",
                param="session.model",
                code="missing_required_parameter",
            )
        services.access.admission.check_bypass(request.caller)
        return await relay_operation(services, request)
    config = default.apply(session)
    if len(dumps(config.fields)) > _SESSION_BYTES:
        raise TooLarge(f"The session has more than {_SESSION_BYTES:,} bytes.", param="session")
    value = f"{PREFIX}{secrets.token_urlsafe(KEY_BYTES)}"
    lifetime_s = int((body.get("expires_after") or {}).get("seconds", _DEFAULT_S))
    secret = StoredSecret(
        hash=hash_key(value).hex(),
        expires_at=int(time.time()) + lifetime_s,
        key_id=request.caller.key_id,
        session=config.fields,
    )
    with translate_store_errors("client secret"):
        limit = services.settings.realtime_client_secrets_limit
        await services.access.client_secrets.add(secret, limit=limit)
    answer = {
        "value": value,
        "expires_at": secret.expires_at,
        "session": {**config.public_fields, "id": f"sess_{uuid.uuid4().hex[:24]}"},
    }
    return JsonResponse(cast("api.RealtimeCreateClientSecretResponse", answer))


def _transcription_model(session: JsonMapping) -> str | None:
    sound = (session.get("audio") or {}).get("input") or {}
    model: str | None = (sound.get("transcription") or {}).get("model")
    return model


async def find_secret(services: Services, headers: Mapping[str, str]) -> StoredSecret | None:
    """Returns the client secret in the headers of a socket; None if their key is another one.
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
    bound = secret.session.get("model")
    if model not in (None, bound):
        raise InvalidRequest(f"The client secret is for the model `{bound}`.", param="model")
    return SessionConfig(fields=secret.session, capabilities=capabilities_of(services))
