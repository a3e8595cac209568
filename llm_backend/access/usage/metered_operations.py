"""Operations that call a model, cause costs at an upstream or send requests to other hosts, and the
units by which each is metered (pure). `exempt_operations` has the others, with reasons, but
for administration and open operations.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm_backend.access.authentication.named_models import find_named_models
from llm_backend.contract.request import ApiRequest
from llm_backend.contract.unknown_operation import UNKNOWN
from llm_backend.json_types import JsonMapping

MODEL_CHARACTERS = 256  # length of a model's name in the usage


def _nothing(_body: JsonMapping) -> int:
    return 0


def _images(body: JsonMapping) -> int:
    return int(body.get("n") or 1)


def _characters(body: JsonMapping) -> int:
    return len(body.get("input") or "")


def _no_detail(_request: ApiRequest) -> str:
    return ""


def _size(request: ApiRequest) -> str:
    return str((request.body or {}).get("size") or "")


def _vector_store(request: ApiRequest) -> str:
    return request.path["vector_store_id"]


def _texts(*names: str) -> re.Pattern[bytes]:
    """Compiles a pattern for the text in these fields, anywhere in JSON."""
    any_of = "|".join(names).encode()
    return re.compile(rb'"(?:%b)": ?"([^"\\]*(?:\\.[^"\\]*)*)"' % any_of)


@dataclass(frozen=True, kw_only=True)
class MeteredOperation:
    """Metering of one operation; `units` counts other units than tokens in the body.

    With `requires_model`, the request must name a model if its project may use only some; without
    it, the operation has no model, or an earlier request named it. `text_pattern` finds the text of
    a stream, to estimate tokens that an upstream does not report. `is_stored`: requests have the
    field `store`. `opens_unmetered_use`: the operation opens something at the upstream whose use
    this server does not see. `is_unknown`: the operation's effect and models are unknown.
    """

    kind: str
    units: Callable[[JsonMapping], int] = _nothing
    detail: Callable[[ApiRequest], str] = _no_detail
    requires_model: bool = True
    default_model: str = ""
    text_pattern: re.Pattern[bytes] | None = None
    is_stored: bool = False
    opens_unmetered_use: bool = False
    is_unknown: bool = False


_CHAT = _texts("content", "reasoning_content", "reasoning", "refusal", "arguments")
_RUN = _texts("value", "arguments")

# OpenAI's API has no `/organization/usage` operation for these: only the costs include them, if
# their tokens are reported.
_OTHER = MeteredOperation(kind="other")
_OTHER_UNNAMED = MeteredOperation(kind="other", requires_model=False)
_BYPASSING = MeteredOperation(kind="other", opens_unmetered_use=True)

METERED: Mapping[str, MeteredOperation] = {
    "createChatCompletion": MeteredOperation(
        kind="completions", text_pattern=_CHAT, is_stored=True
    ),
    "askChat": MeteredOperation(kind="completions", text_pattern=_CHAT),
    "createEdit": MeteredOperation(kind="completions"),
    "createCompletion": MeteredOperation(kind="completions", text_pattern=_texts("text")),
    "createResponse": MeteredOperation(
        kind="completions", text_pattern=_texts("delta"), is_stored=True
    ),
    "createAnthropicMessage": MeteredOperation(
        kind="completions", text_pattern=_texts("text", "partial_json")
    ),
    "countAnthropicMessageTokens": _OTHER,
    "createOllamaChat": MeteredOperation(kind="completions", text_pattern=_texts("content")),
    "createOllamaCompletion": MeteredOperation(kind="completions", text_pattern=_texts("response")),
    "createOllamaEmbeddings": MeteredOperation(kind="embeddings"),
    "createOllamaEmbedding": MeteredOperation(kind="embeddings"),
    "Compactconversation": MeteredOperation(kind="completions"),
    "createRun": MeteredOperation(kind="completions", text_pattern=_RUN),
    "createThreadAndRun": MeteredOperation(kind="completions", text_pattern=_RUN),
    "submitToolOuputsToRun": MeteredOperation(
        kind="completions", text_pattern=_RUN, requires_model=False
    ),
    "createEmbedding": MeteredOperation(kind="embeddings"),
    "createModeration": MeteredOperation(
        kind="moderations", default_model="omni-moderation-latest"
    ),
    "createDecision": MeteredOperation(kind="decisions"),
    "createRerank": MeteredOperation(kind="rerank"),  # in costs; OpenAI's API has no usage of it
    "createImage": MeteredOperation(kind="image.generation", units=_images, detail=_size),
    "createImageEdit": MeteredOperation(kind="image.edit", units=_images, detail=_size),
    "createImageVariation": MeteredOperation(kind="image.variation", units=_images, detail=_size),
    "createSpeech": MeteredOperation(kind="audio_speeches", units=_characters),
    "createTranscription": MeteredOperation(kind="audio_transcriptions"),
    "createTranslation": MeteredOperation(kind="audio_transcriptions"),
    "searchVectorStore": MeteredOperation(
        kind="file_search_calls", detail=_vector_store, requires_model=False
    ),
    "CreateContainer": MeteredOperation(kind="code_interpreter_sessions", requires_model=False),
    "Getinputtokencounts": _OTHER,
    "createAssistant": _OTHER,  # its runs need not name the model again
    "modifyAssistant": _OTHER_UNNAMED,
    "createFineTuningJob": _OTHER,
    "runGrader": _OTHER_UNNAMED,  # few graders call a model; those name it
    "validateGrader": _OTHER_UNNAMED,
    "createEval": _OTHER_UNNAMED,
    "createEvalRun": _OTHER_UNNAMED,
    "createVideo": _OTHER,
    "CreateVideoCharacter": _OTHER,
    "CreateVideoEdit": _OTHER,
    "CreateVideoExtend": _OTHER,
    "CreateVideoRemix": _OTHER,
    "createVoice": _OTHER_UNNAMED,
    "createVoiceConsent": _OTHER_UNNAMED,
    "Createcontentprovenancecheck": _OTHER_UNNAMED,
    "accept-realtime-call": _BYPASSING,
    "create-realtime-call": _BYPASSING,
    "create-realtime-client-secret": _OTHER,  # an upstream's session bypasses metering
    "create-realtime-session": _OTHER,  # as above
    "create-realtime-transcription-session": _OTHER,  # as above
    "create-realtime-translation-client-secret": _BYPASSING,
    "createAgent": _OTHER,  # its sessions need not name the model again
    "updateAgent": _OTHER_UNNAMED,
    "updateAgentSession": _OTHER_UNNAMED,
    "createAgentEnvironment": _OTHER_UNNAMED,
    "createAgentSession": _BYPASSING,
    "createAgentSessionEvent": _BYPASSING,
    "createAgentAutomation": _BYPASSING,
    "updateAgentAutomation": _BYPASSING,
    "resumeAgentAutomation": _BYPASSING,
    "createAgentAutomationInvocation": _BYPASSING,
    "createLiveSession": _BYPASSING,
    "acceptLiveSession": _BYPASSING,
    "forkLiveSession": _BYPASSING,
    "testWebhookEndpoint": _OTHER_UNNAMED,  # each sends a request to an address that a client chose
    UNKNOWN.operation_id: MeteredOperation(kind="other", requires_model=False, is_unknown=True),
    "CreateChatSessionMethod": _BYPASSING,  # of a workflow, whose models are unknown here
}
"""By operationId."""


def model_of(request: ApiRequest, metered: MeteredOperation) -> str:
    """Returns the model that a request names: at the top of its body, else the first one within, in
    a session or a grader for instance; in the head of a form; in a query. The operation's default
    if it names none."""
    body = request.body
    model: Any = None
    if isinstance(body, dict):
        model = body.get("model") or next(iter(find_named_models(body)), None)
    elif request.form_head is not None:
        model = request.form_head.requested_model
    elif request.operation.method == "GET":
        model = request.query.get("model")
    return model[:MODEL_CHARACTERS] if isinstance(model, str) else metered.default_model
