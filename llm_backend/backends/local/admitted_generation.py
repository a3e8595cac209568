"""Admitted generation: a request that has a slot of the engine, with its deltas and its usage."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Self

from llm_backend.backends.base import Chat, ChatDelta, TextDelta, Usage
from llm_backend.backends.local.chat_choice import ChatChoice
from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.grammar_field import GrammarField
from llm_backend.backends.local.markup import MarkupParser
from llm_backend.engine import EngineClient, Generation
from llm_backend.engine.messages import Delta, MediaKind


class AdmittedGeneration:
    """Generation that has a slot of the engine. Its deltas can be read once, as `text_deltas` or as
    `chat_deltas`, and `usage` counts those that were read. `new_parser` creates the markup parser
    of each choice. The end of the deltas, or leaving its `async with`, cancels the rest of it in
    the engine and releases the model.
    """

    def __init__(
        self,
        engine: EngineClient,
        generation: Generation,
        observe: Callable[[Usage], None],
        new_parser: Callable[[], MarkupParser | None],
        names: Mapping[str, str | GrammarField],
    ) -> None:
        self.engine = engine
        self.is_released = False
        self._generation = generation
        self._names = names  # the engine's names of fields -> the client's
        self._observe = observe
        self._new_parser = new_parser
        self._choices: Sequence[ChatChoice] = ()
        self._resources = AsyncExitStack()
        self._last_deltas: dict[int, Delta] = {}  # by choice

    def take_over(self, resources: AsyncExitStack) -> None:
        """Takes over the resources of the request, such as its use of the model. They are released
        when the generation is closed, and only then may the model be unloaded."""
        self._resources = resources

    def share_resources(self, other: Self) -> None:
        """Shares the resources with another generation, which is closed before or after this
        one."""
        share_resources((self, other), self._resources)

    @property
    def usage(self) -> Usage:
        """Tokens and seconds so far."""
        timing, last = self._generation.timing, self._last_deltas.values()
        assigned = self._generation.slot_assigned
        cached = min((delta.cached_tokens for delta in last), default=0)
        predicted = assigned.prediction_tokens
        matching = [min(delta.predicted_tokens, predicted) for delta in last]
        return Usage(
            prompt_tokens=assigned.prompt_tokens,
            completion_tokens=sum(
                delta.completion_tokens + delta.discarded_tokens for delta in last
            ),
            cached_tokens=cached,
            image_tokens=assigned.tokens_of(MediaKind.IMAGE),
            audio_tokens=assigned.tokens_of(MediaKind.AUDIO),
            cached_image_tokens=assigned.tokens_of(MediaKind.IMAGE, until=cached),
            cached_audio_tokens=assigned.tokens_of(MediaKind.AUDIO, until=cached),
            drafted_tokens=sum(delta.drafted_tokens for delta in last),
            accepted_tokens=sum(delta.accepted_tokens for delta in last),
            right_prediction_tokens=sum(matching),
            wrong_prediction_tokens=sum(max(0, predicted - count) for count in matching),
            queue_s=timing.queue_s,
            prompt_s=timing.prompt_s,
            generation_s=timing.generation_s,
            reasoning_tokens=sum(choice.reasoning_tokens for choice in self._choices),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._release()
        finally:
            self._observe(self.usage)

    async def text_deltas(self) -> AsyncGenerator[TextDelta, None]:
        """Yields the deltas as plain text."""
        with translate_engine_errors(**self._names):
            async for delta in self._generation:
                self._last_deltas[delta.index] = delta
                yield TextDelta(
                    choice=delta.index,
                    text=delta.text,
                    logprobs=delta.logprobs,
                    finish_reason=delta.finish_reason,
                )
        await self._release()

    async def chat_deltas(self, request: Chat) -> AsyncGenerator[ChatDelta, None]:
        """Yields the deltas as reasoning, content and tool calls."""
        self._choices = [
            ChatChoice(
                index,
                self._new_parser(),
                is_parallel=request.parallel_tool_calls,
                stops=request.limits.stop,
            )
            for index in range(request.limits.choices)
        ]
        with translate_engine_errors(**self._names):
            async for delta in self._generation:
                self._last_deltas[delta.index] = delta
                choice = self._choices[delta.index]
                for part in choice.convert(delta):
                    yield part
                if choice.is_finished and all(other.is_finished for other in self._choices):
                    break
        await self._release()

    async def _release(self) -> None:
        """Cancels the rest of the generation and releases the model. A request that goes on then
        does not hold this one in memory if it needs another, such as one that moderates."""
        self.is_released = True
        async with self._resources:
            await self._generation.aclose()


def share_resources(answers: Sequence[AdmittedGeneration], resources: AsyncExitStack) -> None:
    """Gives resources to one or more generations; they are released when the last one is closed."""
    unclosed = len(answers)

    async def release() -> None:
        nonlocal unclosed
        unclosed -= 1
        if not unclosed:
            await resources.aclose()

    for answer in answers:
        share = AsyncExitStack()
        share.push_async_callback(release)
        answer.take_over(share)
