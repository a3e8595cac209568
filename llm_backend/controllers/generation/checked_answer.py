"""Validation of answers against their JSON schemas.

If the grammar expresses the whole schema, answers are streamed and checked at their end. If it
expresses less, an answer is withheld until it is checked, and generated again if it violates the
schema.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import msgspec

from llm_backend.backends.base import Chat, ChatDelta, Usage
from llm_backend.controllers.generation.structured_output import StructuredOutput
from llm_backend.engine.messages import FinishReason
from llm_backend.errors import Internal, UnusableAnswer

log = logging.getLogger(__name__)

_ANSWER_BREAKS_SCHEMA = "answer_breaks_schema"
_RETRY_TEMPERATURE = 0.7  # minimum of a retry: a lower one would often give the same answer


class ModelAnswer(Protocol):
    """A generation that a model has admitted; leaving its `async with` releases its resources."""

    @property
    def usage(self) -> Usage: ...
    def chat_deltas(self, request: Chat) -> AsyncGenerator[ChatDelta, None]: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...


@dataclass
class _ChoiceOutput:
    """Output of one choice: its deltas, and the arguments of its calls by index."""

    deltas: list[ChatDelta] = field(default_factory=list)
    calls: dict[int, tuple[str, list[str]]] = field(default_factory=dict)

    def add(self, delta: ChatDelta) -> None:
        self.deltas.append(delta)
        for call in delta.tool_calls:
            name, pieces = self.calls.get(call.index, ("", []))
            self.calls[call.index] = (call.name or name, [*pieces, call.arguments])

    @property
    def is_ended(self) -> bool:
        return bool(self.deltas) and self.deltas[-1].finish_reason is not None

    def violates_schema(self, structure: StructuredOutput) -> bool:
        """True if the output violates the schema; one cut off by its length does not."""
        reason = self.deltas[-1].finish_reason
        needs_no_validation = structure.needs_no_validation
        if reason == FinishReason.STOP and structure.schema is not None:
            content = "".join(delta.content for delta in self.deltas)
            return structure.schema.rejects(content, needs_no_validation=needs_no_validation)
        whole = list(self.calls.values())
        return any(
            structure.calls[name].rejects(
                "".join(pieces) or "{}", needs_no_validation=needs_no_validation
            )
            for name, pieces in (whole[:-1] if reason == FinishReason.LENGTH else whole)
            if name in structure.calls
        )


class CheckedAnswer:
    """An answer that is validated against `structure`. If it is invalid, `generate` starts a
    further attempt; there are at most `attempts` in total, and `usage` counts all of them."""

    def __init__(
        self,
        answer: ModelAnswer,
        structure: StructuredOutput,
        generate: Callable[[Chat], Awaitable[ModelAnswer]],
        *,
        attempts: int,
    ) -> None:
        self.answer = answer  # of the present attempt
        self._structure = structure
        self._generate = generate
        self._attempts = attempts
        self._spent_usage = Usage()  # of the attempts before `answer`
        self._is_released = False  # True between two attempts

    @property
    def usage(self) -> Usage:
        """Tokens and seconds so far."""
        return self._spent_usage + self.answer.usage

    async def __aenter__(self) -> Self:
        await self.answer.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._is_released:
            await self.answer.__aexit__(None, None, None)

    async def chat_deltas(self, request: Chat) -> AsyncGenerator[ChatDelta, None]:
        """Yields the deltas; those of a withheld choice all at its end. Raises
        `UnusableAnswer` for a choice that violates the schema in every attempt."""
        if self._structure.needs_no_validation:
            deltas = raise_on_violation(self.answer.chat_deltas(request), self._structure)
        else:
            deltas = self._withhold(request)
        async with aclosing(deltas):
            async for delta in deltas:
                yield delta

    async def _withhold(self, request: Chat) -> AsyncGenerator[ChatDelta, None]:
        invalid: list[int] = []
        async for choice, output in _finished_choices(self.answer.chat_deltas(request)):
            if await asyncio.to_thread(output.violates_schema, self._structure):
                invalid.append(choice)
                continue
            for delta in output.deltas:
                yield delta
        for choice in invalid:
            for delta in await self._retry(request):
                yield replace(delta, choice=choice)

    async def _retry(self, request: Chat) -> list[ChatDelta]:
        """Generates one choice again until it satisfies the schema. Raises
        `UnusableAnswer` if none does."""
        for attempt in range(1, self._attempts):
            chat = _retry_request(request, attempt)
            await self.answer.__aexit__(None, None, None)
            self._is_released = True
            answer = await self._generate(chat)
            self._spent_usage += self.answer.usage
            self.answer, self._is_released = answer, False
            await answer.__aenter__()
            async for _, output in _finished_choices(self.answer.chat_deltas(chat)):
                if not await asyncio.to_thread(output.violates_schema, self._structure):
                    return output.deltas
        raise UnusableAnswer(
            _schema_message(f"In {self._attempts} tries"), code=_ANSWER_BREAKS_SCHEMA
        )


async def raise_on_violation(
    deltas: AsyncGenerator[ChatDelta, None], structure: StructuredOutput
) -> AsyncGenerator[ChatDelta, None]:
    """Yields the deltas; raises `Internal` in place of the end of a choice that violates the
    schema. A choice cut off by its length does not."""
    choices: defaultdict[int, _ChoiceOutput] = defaultdict(_ChoiceOutput)
    async with aclosing(deltas):
        async for delta in deltas:
            output = choices[delta.choice]
            output.add(delta)
            if output.is_ended and await asyncio.to_thread(output.violates_schema, structure):
                log.error(_ANSWER_BREAKS_SCHEMA, extra={"choice": delta.choice})
                message = _schema_message("In spite of its grammar")
                raise Internal(message, code=_ANSWER_BREAKS_SCHEMA)
            yield delta


async def _finished_choices(
    deltas: AsyncGenerator[ChatDelta, None],
) -> AsyncGenerator[tuple[int, _ChoiceOutput], None]:
    """Yields each choice with its index when it has ended."""
    choices: defaultdict[int, _ChoiceOutput] = defaultdict(_ChoiceOutput)
    async with aclosing(deltas):
        async for delta in deltas:
            output = choices[delta.choice]
            output.add(delta)
            if output.is_ended:
                yield delta.choice, choices.pop(delta.choice)


def _retry_request(request: Chat, attempt: int) -> Chat:
    """Returns the chat for one more choice, with another seed and a higher temperature."""
    sampling = request.sampling
    seed = None if sampling.seed is None else (sampling.seed + attempt) % 2**63
    temperature = max(sampling.temperature, _RETRY_TEMPERATURE)
    return replace(
        request,
        limits=replace(request.limits, choices=1),
        sampling=msgspec.structs.replace(sampling, seed=seed, temperature=temperature),
    )


def _schema_message(circumstance: str) -> str:
    return (
        f"{circumstance}, the model's answer does not match the schema. Try again, or simplify "
        "the schema."
    )
