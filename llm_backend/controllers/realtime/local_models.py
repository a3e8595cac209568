"""Models that answer realtime sessions here."""

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import Image
from llm_backend.backends.registry import ImageServerModel, UpstreamModel, wrong_operation
from llm_backend.backends.speech import BUILTIN_VOICE, EspeakModel
from llm_backend.controllers.realtime.session_config import Capabilities, SessionConfig
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest
from llm_backend.extras import is_installed
from llm_backend.json_types import JsonMapping

OPERATION = ("realtime", "Realtime")
"""Names by which settings assign realtime sessions to an upstream."""


def is_local(services: Services, model: str) -> bool:
    """True if this server answers a session with the model itself. Raises `ModelNotFound`."""
    return not isinstance(services.registry.targets(model, OPERATION)[0], UpstreamModel)


async def check_local_model(services: Services, model: str) -> None:
    """Raises `InvalidRequest` for a model that cannot hold a conversation here: it is of another
    kind, or has been moved to an upstream since the client secret was made."""
    target = services.registry.targets(model, OPERATION)[0]
    if isinstance(target, EspeakModel | ImageServerModel):
        raise wrong_operation(target)
    if isinstance(target, UpstreamModel):
        raise InvalidRequest(
            f"An upstream answers `{model}` now: make another client secret.", param="model"
        )
    if not target.takes_text:
        raise InvalidRequest(f"`{model}` {target.purpose}; it does not answer.", param="model")
    if await target.may_embed():
        raise InvalidRequest(f"`{model}` embeds texts; it does not answer.", param="model")


async def check_images(services: Services, model: str, item: JsonMapping) -> None:
    """Raises `InvalidRequest`, which names the field, for an item with an image that the model does
    not see or that cannot be decoded: each response would fail until the item is deleted."""
    target = services.registry.targets(model, OPERATION)[0]
    parts = item["content"] if item["type"] == "message" else ()
    for index, part in enumerate(parts):
        if part["type"] == "input_image" and isinstance(target, LocalModel):
            detail, param = part.get("detail") or "auto", f"item.content[{index}].image_url"
            await target.check_image(Image(url=part["image_url"], detail=detail, param=param))


def capabilities_of(services: Services) -> Capabilities:
    """Returns what sessions of this server can do."""
    model, voice = services.settings.realtime_speech_model, services.registry.espeak_model
    voiceless_reason = None
    if model == BUILTIN_VOICE:
        voiceless_reason = "This server has no voice." if voice is None else voice.missing
    elif not services.registry.is_own_name(model) and services.upstreams is None:
        voiceless_reason = f"No model `{model}` reads answers aloud here."
    return Capabilities(
        speech_model=model,
        voiceless_reason=voiceless_reason,
        transcription_model=services.settings.realtime_transcription_model,
        detects_turns=is_installed("realtime"),
    )


async def local_session(
    services: Services, model: str | None, *, only_transcribes: bool
) -> SessionConfig | None:
    """Returns the configuration of a new session that this server answers; None if that is for an
    upstream. Raises `ApiError` for a model that holds no such session."""
    if model is not None and not is_local(services, model):
        return None
    capabilities = capabilities_of(services)
    if not only_transcribes:
        if model is None:
            return None
        await check_local_model(services, model)
        return SessionConfig.default(model, capabilities)
    if (
        model is None
        and capabilities.transcription_model is None
        and services.upstreams is not None
    ):
        return None
    if model is not None:
        check_transcriber(services, model)
    return SessionConfig.default_transcription(model, capabilities)


def check_transcriber(services: Services, model: str) -> None:
    """Raises `InvalidRequest` for a local model that does not transcribe."""
    target = services.registry.targets(model, OPERATION)[0]
    if not isinstance(target, LocalModel) or not target.can_transcribe:
        raise InvalidRequest(f"`{model}` does not transcribe.", param="model")
