"""Which operations ask a model, and what is counted of each (pure)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_backend.contract.request import Request

__all__ = ["METERED", "Metered", "model_of"]

Body = Mapping[str, Any]

MODEL_CHARACTERS = 256  # of a name that is counted under


def _one(_body: Body) -> int:
    return 0


def _images(body: Body) -> int:
    return int(body.get("n") or 1)


def _characters(body: Body) -> int:
    return len(body.get("input") or "")


def _no_detail(_request: Request) -> str:
    return ""


def _size(request: Request) -> str:
    return str((request.body or {}).get("size") or "")


def _vector_store(request: Request) -> str:
    return request.path["vector_store_id"]


@dataclass(frozen=True, kw_only=True)
class Metered:
    """What one operation's usage is kept under; `units` are counted of the body beside tokens."""

    kind: str
    units: Callable[[Body], int] = _one
    detail: Callable[[Request], str] = _no_detail


METERED: Mapping[str, Metered] = {
    "createChatCompletion": Metered(kind="completions"),
    "askChat": Metered(kind="completions"),
    "createCompletion": Metered(kind="completions"),
    "createResponse": Metered(kind="completions"),
    "Compactconversation": Metered(kind="completions"),
    "createEmbedding": Metered(kind="embeddings"),
    "createModeration": Metered(kind="moderations"),
    "createRerank": Metered(kind="rerank"),  # in costs; the document has no usage of it
    "createImage": Metered(kind="image.generation", units=_images, detail=_size),
    "createImageEdit": Metered(kind="image.edit", units=_images, detail=_size),
    "createImageVariation": Metered(kind="image.variation", units=_images, detail=_size),
    "createSpeech": Metered(kind="audio_speeches", units=_characters),
    "createTranscription": Metered(kind="audio_transcriptions"),
    "createTranslation": Metered(kind="audio_transcriptions"),
    "searchVectorStore": Metered(kind="file_search_calls", detail=_vector_store),
    "CreateContainer": Metered(kind="code_interpreter_sessions"),
}
"""By operationId."""


def model_of(request: Request) -> str:
    """The model that a JSON body or the query names; empty where none is named, or by a form."""
    body = request.body
    model = body.get("model") if isinstance(body, dict) else request.query.get("model")
    return model[:MODEL_CHARACTERS] if isinstance(model, str) else ""
