"""Text completions: prompts of every form, several per request."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend.backends.base import TextDelta, TextPrompt, Usage
from llm_backend.backends.local.admitted_generation import AdmittedGeneration
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.generation.field_aliases import with_common_names
from llm_backend.controllers.generation.foreign_tokens import decode_foreign_tokens
from llm_backend.controllers.generation.request_translation import prompts_from
from llm_backend.controllers.relay.routing import answer_by_route
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.rendering.obfuscation import Obfuscation, obfuscation_for
from llm_backend.controllers.services import Services
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


async def create_completion(services: Services, request: ApiRequest) -> Response:
    """`POST /completions`"""
    return await answer_by_route(services, request, local=_answer)


async def _answer(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    body: api.CreateCompletionRequest = request.body
    parsed_prompts = await offload(
        prompts_from,
        model.with_defaults(with_common_names(body)),
        choices_limit=services.settings.choices_limit,
        prompts_limit=services.settings.prompts_limit,
    )
    prompt_values = [prompt.prompt for prompt in parsed_prompts]
    inputs = await decode_foreign_tokens(
        services.token_files, body["model"], prompt_values, "prompt"
    )
    prompts = [
        replace(prompt, prompt=one) for prompt, one in zip(parsed_prompts, inputs, strict=True)
    ]
    answers = await cancel_on_disconnect(request, model.complete(prompts))
    options, default = body.get("stream_options"), services.settings.obfuscate_streams
    obfuscation = obfuscation_for(options, default=default)
    turn = _CompletionTurn(body, answers, prompts[0], obfuscation)
    if body.get("stream"):
        return await cancel_on_disconnect(request, event_stream(turn.chunks()))
    return JsonResponse(await cancel_on_disconnect(request, turn.completion()))


class _CompletionTurn:
    """The answer to one request; choice k of prompt p has the index p * choices + k. All prompts
    have the same parameters; `prompt` is one of them."""

    def __init__(
        self,
        body: "api.CreateCompletionRequest",
        answers: Sequence[AdmittedGeneration],
        prompt: TextPrompt,
        obfuscation: Obfuscation | None,
    ) -> None:
        self._answers = answers
        self._choices = prompt.limits.choices
        self._has_logprobs = prompt.sampling.logprobs is not None
        self._obfuscation = obfuscation
        self._includes_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._head = chunks.ChunkHead(
            id=f"cmpl-{uuid.uuid4().hex}",
            kind="text_completion",
            created_at=int(time.time()),
            model=body["model"],
            includes_usage=self._includes_usage,
        )

    async def chunks(self) -> AsyncGenerator[JsonObject, None]:
        """Yields a chunk for each delta of any choice, in the order of their arrival."""
        offsets = [chunks.TextOffsets() for _ in range(len(self._answers) * self._choices)]
        async with _MergedStream(self._answers) as deltas:
            async for prompt_index, delta in deltas:
                index = prompt_index * self._choices + delta.choice
                chunk = chunks.text_chunk(self._head, index, delta, offsets[index])
                yield self._obfuscate(chunk, delta.text)
        if self._includes_usage:
            yield chunks.usage_chunk(self._head, self._usage())

    def _obfuscate(self, chunk: JsonObject, text: str) -> JsonObject:
        return chunk if self._obfuscation is None else self._obfuscation.with_text(chunk, text)

    async def completion(self) -> JsonObject:
        """Returns the whole answer, its choices in the order of their index."""
        texts: dict[int, list[TextDelta]] = {}
        async with _MergedStream(self._answers) as deltas:
            async for prompt_index, delta in deltas:
                texts.setdefault(prompt_index * self._choices + delta.choice, []).append(delta)
        choices = [self._choice(index, texts[index]) for index in sorted(texts)]
        return self._head.chunk(choices) | {"usage": chunks.usage_object(self._usage())}

    def _choice(self, index: int, deltas: Sequence[TextDelta]) -> JsonObject:
        chunk = chunks.text_chunk(
            self._head,
            index,
            _join_deltas(deltas),
            chunks.TextOffsets(),
            has_logprobs=self._has_logprobs,
        )
        choice: JsonObject = chunk["choices"][0]
        return choice

    def _usage(self) -> Usage:
        each = [answer.usage for answer in self._answers]
        return replace(
            sum(each, Usage()),
            queue_s=max(usage.queue_s for usage in each),
            prompt_s=max(usage.prompt_s for usage in each),
            generation_s=max(usage.generation_s for usage in each),
        )


def _join_deltas(deltas: Sequence[TextDelta]) -> TextDelta:
    """Joins the deltas of one choice."""
    return TextDelta(
        choice=deltas[0].choice,
        text="".join(delta.text for delta in deltas),
        logprobs=[entry for delta in deltas for entry in delta.logprobs],
        finish_reason=deltas[-1].finish_reason,
    )


class _MergedStream:
    """Merges the deltas of several answers as they arrive, each with the index of its answer.

    Reads ahead at most one delta for each answer. Leaving its `async with` closes all answers.
    """

    def __init__(self, answers: Sequence[AdmittedGeneration]) -> None:
        self._answers = answers
        self._queue: asyncio.Queue[tuple[int, TextDelta | Exception | None]] = asyncio.Queue(
            maxsize=len(answers)
        )
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> AsyncGenerator[tuple[int, TextDelta], None]:
        self._readers = [
            asyncio.create_task(self._read(prompt_index))
            for prompt_index in range(len(self._answers))
        ]
        self._merged = self._deltas()
        return self._merged

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        await self._merged.aclose()
        await asyncio.gather(*self._readers, return_exceptions=True)

    async def _read(self, prompt_index: int) -> None:
        ending: Exception | None = None
        async with self._answers[prompt_index] as answer:
            try:
                async with aclosing(answer.text_deltas()) as deltas:
                    async for delta in deltas:
                        await self._queue.put((prompt_index, delta))
            except Exception as error:  # raised again in the consumer of the deltas
                ending = error
        await self._queue.put((prompt_index, ending))
        del ending  # its traceback holds this frame, in a cycle

    async def _deltas(self) -> AsyncGenerator[tuple[int, TextDelta], None]:
        running = len(self._answers)
        while running:
            prompt_index, delta = await self._queue.get()
            if delta is None:
                running -= 1
            elif isinstance(delta, Exception):
                try:
                    raise delta
                finally:
                    del delta  # for the same reason as in `_read`
            else:
                yield prompt_index, delta
