"""Models that answer realtime sessions here."""

from llm_backend.backends.registry import PictureModel, UpstreamModel, wrong_operation
from llm_backend.backends.speech import BUILTIN_VOICE, VoiceModel
from llm_backend.controllers.realtime.session_config import Abilities
from llm_backend.controllers.services import Services
from llm_backend.errors import InvalidRequest

OPERATION = ("realtime", "Realtime")
"""Names by which settings assign realtime sessions to an upstream."""


def is_local(services: Services, model: str) -> bool:
    """True if this server answers a session with the model itself. Raises `ModelNotFound`."""
    return not isinstance(services.registry.steps(model, OPERATION)[0], UpstreamModel)


def check_local_model(services: Services, model: str) -> None:
    """Raises `InvalidRequest` for a local model that holds no conversation."""
    step = services.registry.steps(model, OPERATION)[0]
    if isinstance(step, VoiceModel | PictureModel):
        raise wrong_operation(step)
    assert not isinstance(step, UpstreamModel), "the model is local"
    if step.transcribes:
        raise InvalidRequest(f"`{model}` transcribes; it does not answer.", param="model")


def abilities_of(services: Services) -> Abilities:
    """Returns what sessions of this server can do."""
    model, voice = services.settings.realtime_speech_model, services.registry.voice
    mute_because = None
    if model == BUILTIN_VOICE:
        mute_because = "This server has no voice." if voice is None else voice.missing
    elif not services.registry.knows(model) and services.upstreams is None:
        mute_because = f"No model `{model}` reads answers aloud here."
    return Abilities(speech_model=model, mute_because=mute_because)
