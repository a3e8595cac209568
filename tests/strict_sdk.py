"""The official client, with every answer held to the SDK's models: no unknown field, none missing.

The SDK itself keeps unknown fields and takes missing ones for None. Here each answer and each
event of a stream is compared with the type that it becomes.
"""

import json
import types
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import openai
from openai._base_client import BasePage
from pydantic import BaseModel

from llm_backend.contract.sdk.schemas import SdkSchemas

SCALARS = {dict: dict, str: str, int: int, float: int | float, bool: bool, type(None): type(None)}
# Differences that are meant, by the SDK's class and the field; `*` is any.
MEANT = {
    "*.obfuscation": "the document has `include_obfuscation` for all streams",
    "ChatCompletion.retrieval": "passages that were found for a chat",
    "ChatCompletion.status": "of stored chats: a stream that was left is incomplete",
    "ChatCompletion.truncated_messages": "told with `truncation: auto`",
    "ChatCompletionChunk.retrieval": "as in the whole answer",
    "ChatCompletionChunk.truncated_messages": "as in the whole answer",
    "ChatCompletionMessage.annotations": "citations of files, as in responses",
    "ChatCompletionMessage.reasoning_content": "reasoning of local models, by the common name",
    "ChatCompletionStoreMessage.role": "messages of users are stored, too",
    "ChoiceDelta.annotations": "citations of files, as in responses",
    "ChoiceDelta.reasoning_content": "reasoning of local models, by the common name",
    "ChoiceDeltaToolCall.custom": "the SDK has custom tools in whole answers only",
    "ChoiceDeltaToolCall.type": "as of whole answers",
    "CompactedResponse.output": "messages of users are kept; open_responses.py checks them",
    "CompletionChoice.finish_reason": "null in all chunks but the last, as OpenAI sends it",
    "CompletionUsage.timings": "times of this server",
    "Embedding.embedding": "the SDK asks for base64 and decodes it itself",
    "FileObject.purpose": "the SDK itself uploads files for `evals`",
    "Logprobs.token_logprobs[]": "null for the first token of a prompt, which follows none",
    "Logprobs.top_logprobs[]": "as above",
    "ImageGenerationCall.revised_prompt": "the prompt, as OpenAI sends it",
    "ImageEditCompletedEvent.size": "images of image servers have other sizes, too",
    "ImageGenCompletedEvent.size": "as above",
    "ImageEditPartialImageEvent.size": "as above",
    "ImageGenPartialImageEvent.size": "as above",
    "ImagesResponse.size": "as above",
    "Model.*": "kind, state and abilities of this server's models",
    "ProjectUpdatedChangesRequested.model_permissions": "the change that was made",
    "Response.frequency_penalty": "required by Open Responses",
    "Response.presence_penalty": "as above",
    "Response.retrieval": "passages that were found for a response",
    "Response.store": "required by Open Responses",
    "ResponseCustomToolCall.status": "all items have one, as the document's resource of this item",
    "InputAudioTranscription.model": "the models of this server",
    "SessionCreateResponse.*": "the fields of the document's answer, too",
    "Result.vector_store_id": "the store of a passage, where several are searched",
    "TranscriptionVerbose.task": "OpenAI sends it, and neither document nor SDK has it",
    "TranslationVerbose.task": "as above",
    "TranslationVerbose.usage": "seconds of audio, as transcriptions report them",
    "Response.truncated_items": "told with `truncation: auto`",
}


class BreaksSdk(AssertionError):
    """Raised for an answer that the SDK's model does not describe."""


class StrictOpenAI(openai.OpenAI):
    """The synchronous client."""

    def _process_response_data(self, *, data: Any, cast_to: Any, response: Any) -> Any:
        check_answer(cast_to, data, response)
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


class StrictAsyncOpenAI(openai.AsyncOpenAI):
    """The asynchronous client."""

    def _process_response_data(self, *, data: Any, cast_to: Any, response: Any) -> Any:
        check_answer(cast_to, data, response)
        return super()._process_response_data(data=data, cast_to=cast_to, response=response)


def check_answer(kind: Any, data: Any, response: Any) -> None:
    """Asserts that data has the fields and the types of a type of the SDK."""
    found = {one for one in differences(kind, data, "") if not _is_meant(one.partition(" ")[0])}
    if found:
        request = response.request
        raise BreaksSdk(f"{request.method} {request.url.path}: {sorted(found)}")


def _is_meant(place: str) -> bool:
    model, _, field = place.partition(".")
    return not MEANT.keys().isdisjoint({place, f"{model}.*", f"*.{field}"})


def differences(kind: Any, data: Any, place: str) -> Iterator[str]:
    """Yields the differences of data from a type, each as `Class.field reason`."""
    origin: Any = get_origin(kind)
    arguments = get_args(kind)
    if kind in {object, Any}:
        return
    if origin is Annotated:
        yield from differences(arguments[0], data, place)
    elif origin in {Union, types.UnionType}:
        branches = [list(differences(one, data, place)) for one in arguments]
        yield from min(branches, key=partial(_rank, place=place))
    elif origin is Literal:
        if data not in arguments:
            yield f"{place} is {json.dumps(data)}"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from _model_differences(kind, data, place)
    elif origin is list:
        yield from _all(arguments[0], data, place, list)
    elif origin is dict:
        yield from _all(arguments[1], data, place, dict)
    elif not isinstance(data, SCALARS[kind]) or (isinstance(data, bool) and kind is not bool):
        yield f"{place} is {json.dumps(data)[:100]}"


def _rank(found: list[str], place: str) -> tuple[int, int, int]:
    """Order of a union's branches: the one with the value's own kind and `type` comes first."""
    others = [one for one in found if one.startswith((f"{place} is ", f"{place}[] is "))]
    types_ = [one for one in found if ".type is " in one]
    return len(others), len(types_), len(found)


def _all(kind: Any, data: Any, place: str, container: type) -> Iterator[str]:
    if not isinstance(data, container):
        yield f"{place} is {json.dumps(data)[:100]}"
        return
    values: Iterable[Any] = list(data.values() if isinstance(data, dict) else data)
    for one in values:
        yield from differences(kind, one, f"{place}[]")


def _model_differences(kind: type[BaseModel], data: Any, place: str) -> Iterator[str]:
    name = kind.__name__.partition("[")[0]
    if not isinstance(data, dict):
        yield f"{place or name} is {json.dumps(data)[:100]}"
        return
    fields = {sent: (hint, is_required)
              for sent, hint, is_required in SdkSchemas().fields_of(kind).values()}  # fmt: skip
    for sent, value in data.items():
        if sent in fields and not _is_meant(f"{name}.{sent}"):
            yield from differences(fields[sent][0], value, f"{name}.{sent}")
        # the SDK's pages are not the document's lists
        elif sent not in fields and not issubclass(kind, BasePage):
            yield f"{name}.{sent} is unknown"
    for sent, (_, is_required) in fields.items():
        if is_required and sent not in data:
            yield f"{name}.{sent} is missing"
