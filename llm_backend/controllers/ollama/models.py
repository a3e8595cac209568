"""Version of Ollama's API, and lists and descriptions of models in its form."""

import hashlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.upstream.model_list import LATEST_TIME_S
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.ollama.lines import format_time
from llm_backend.controllers.ollama.request import check_enabled, known_name
from llm_backend.controllers.rendering.chunks import model_object
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.engine.messages import ModelInfo, ModelKind
from llm_backend.errors import ModelNotFound
from llm_backend.json_types import JsonMapping, JsonObject, JsonValue
from llm_backend.model_files import GgufHeader

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

API_VERSION = "0.12.11"
"""Version of Ollama whose API this server answers; clients decide by it what they may send."""

_LENGTHS = ("context_length", "embedding_length")
_TEMPLATE = "tokenizer.chat_template"
_INFILL = ("tokenizer.ggml.prefix_token_id", "tokenizer.ggml.fim_pre_token_id")
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


async def get_ollama_version(services: Services, request: ApiRequest) -> Response:
    """`GET /api/version`"""
    check_enabled(services)
    return JsonResponse({"version": API_VERSION})


async def list_ollama_models(services: Services, request: ApiRequest) -> Response:
    """`GET /api/tags`: the models of `GET /v1/models` that generate text."""
    check_enabled(services)
    registry = services.registry
    local = [
        (model_object(card), registry.for_model(card.id))
        for card in registry.local_cards()
        if not registry.is_voice(card.id) and not registry.is_image_model(card.id)
    ]
    upstream = [(one, None) for one in await registry.upstream_models()]
    admission, caller = services.access.admission, request.caller
    models = [
        await _entry(card, model)
        for card, model in (*local, *upstream)
        if admission.may_use(caller, card["id"]) and (model is None or model.takes_text)
    ]
    return JsonResponse({"models": models})


async def list_loaded_ollama_models(services: Services, request: ApiRequest) -> Response:
    """`GET /api/ps`: the local models in memory."""
    check_enabled(services)
    models = [
        {**await _entry(model_object(model.card), model), **_describe_loaded(model, info)}
        for model in services.registry.local
        if model.takes_text
        and services.access.admission.may_use(request.caller, model.card.id)
        and (info := model.engine.info if model.engine else None) is not None
    ]
    return JsonResponse({"models": models})


async def show_ollama_model(services: Services, request: ApiRequest) -> Response:
    """`POST /api/show`: a model as its file's header describes it; nothing is loaded."""
    check_enabled(services)
    body: api.ShowOllamaModelRequest = request.body
    name = known_name(services, body.get("model") or body.get("name") or "")
    if not services.access.admission.may_use(request.caller, name):
        raise ModelNotFound(name)
    model = services.registry.for_model(name)
    header = await model.file_header() if model else None
    nothing: JsonObject = {}
    defaults = model.with_defaults(nothing) if model else nothing
    return JsonResponse(
        {
            "modified_at": format_time(model.card.created_at if model else 0),
            "modelfile": f"FROM {name}\n",
            "parameters": "\n".join(f"{key} {value}" for key, value in defaults.items()),
            "template": str(header.values.get(_TEMPLATE) or "") if header else "",
            "details": _details(header),
            "model_info": _model_info(header) if header else {},
            "capabilities": await _capabilities(model, header),
        }
    )


async def _entry(card: JsonMapping, model: LocalModel | None) -> JsonObject:
    """Returns the entry of a list; facts of the file are known of local models only."""
    header = await model.file_header() if model else None
    created_at = card["created"]
    identity = f"{card['id']} {created_at}"
    return {
        "name": card["id"],
        "model": card["id"],
        "modified_at": format_time(created_at),
        "size": header.weights_bytes if header else 0,
        "digest": hashlib.sha256(identity.encode()).hexdigest(),
        "details": _details(header),
        "capabilities": await _capabilities(model, header),
    }


def _describe_loaded(model: LocalModel, info: ModelInfo) -> JsonObject:
    """Returns the fields that differ in the entry of a loaded model. `expires_at` is the time at
    which it is unloaded if no further request comes."""
    idle_s = model.handle.idle_unload_s
    expires_at = LATEST_TIME_S if idle_s is None else time.time() + idle_s
    return {
        "expires_at": format_time(expires_at),
        "size": info.size_bytes,
        "size_vram": info.gpu_bytes,
        "context_length": info.context_tokens,
    }


def _details(header: GgufHeader | None) -> JsonObject:
    family = header.architecture if header else ""
    kind = header.values.get("general.file_type") if header else None
    return {
        "parent_model": "",
        "format": "gguf" if header else "",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": _parameters(header.parameters) if header else "",
        "quantization_level": _FILE_TYPES.get(kind, "unknown") if isinstance(kind, int) else "",
        **_lengths(header),
    }


def _lengths(header: GgufHeader | None) -> JsonObject:
    lengths = {name: header.of_architecture(name) for name in _LENGTHS} if header else {}
    return {name: length for name, length in lengths.items() if isinstance(length, int)}


def _parameters(number: int) -> str:
    for unit, size in (("B", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def _model_info(header: GgufHeader) -> Mapping[str, JsonValue]:
    """Returns the header's values, without the template and long lists."""
    values = {key: value for key, value in header.values.items() if key != _TEMPLATE}
    return {"general.parameter_count": header.parameters, **values}


async def _capabilities(model: LocalModel | None, header: GgufHeader | None) -> list[str]:
    """Returns the purposes of a model, by its file. An upstream's model is assumed to chat."""
    if model is None or header is None:
        return ["completion"]
    if await model.may_embed():
        return ["embedding"]
    if model.engine and model.engine.info and model.engine.info.kind is ModelKind.RERANK:
        return []  # Ollama has no name for it
    return ["completion", *_chat_capabilities(model, header)]


def _chat_capabilities(model: LocalModel, header: GgufHeader) -> Iterable[str]:
    template = str(header.values.get(_TEMPLATE) or "")
    if "tools" in template:
        yield "tools"
    if "think" in template:
        yield "thinking"
    if model.accepts_images:
        yield "vision"
    if any(header.values.get(key) is not None for key in _INFILL):
        yield "insert"
