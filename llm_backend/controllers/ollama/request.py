"""Checks and names that all operations of Ollama's API share."""

from dataclasses import replace

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.services import Services
from llm_backend.errors import Unsupported

_TAG = ":latest"


def check_enabled(services: Services) -> None:
    """Raises `Unsupported` if the settings switch Ollama's API off."""
    if not services.settings.ollama_api:
        raise Unsupported("Ollama's API is switched off here (`ollama_api`).")


def with_known_model(services: Services, request: ApiRequest) -> ApiRequest:
    """Returns the request with the model's name of this server: clients of Ollama write `NAME` and
    `NAME:latest` alike. Raises `Forbidden` and `QuotaExceeded` for that name."""
    name = known_name(services, request.body["model"])
    if name != request.body["model"] and request.caller.project is not None:
        services.access.admission.check(request.caller, name)
    return replace(request, body={**request.body, "model": name})


def known_name(services: Services, name: str) -> str:
    """Returns a model's name without `:latest` if this server knows only that; checks no
    permission."""
    plain = name.removesuffix(_TAG)
    is_own = services.registry.is_own_name
    return plain if not is_own(name) and is_own(plain) else name
