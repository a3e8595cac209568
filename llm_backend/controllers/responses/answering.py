"""A question that a model has taken, and the response that its answer makes."""

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.controllers.chat_deltas import Transcript
from llm_backend.controllers.moderated import Moderated, moderated
from llm_backend.controllers.responses.compacting import cut_if_due
from llm_backend.controllers.responses.events import ResponseState
from llm_backend.controllers.responses.memory import conversation_of
from llm_backend.controllers.responses.model import Model
from llm_backend.controllers.responses.question import Question
from llm_backend.controllers.responses.request import named_as_sent, repeated_fields
from llm_backend.controllers.responses.rounds import (
    Happening,
    RoundOver,
    Rounds,
    WithheldRounds,
)
from llm_backend.controllers.responses.thoughts import SummedUp, Thoughts
from llm_backend.controllers.responses.truncation import fitting
from llm_backend.controllers.services import Services

__all__ = ["Answering", "answered", "new_head", "shown_usage"]

Json = dict[str, Any]
Body = Mapping[str, Any]


def new_head(body: Body, *, is_stored: bool, passages_limit: int) -> Json:
    """What does not change of a new response; see `repeated_fields`."""
    conversation_id = conversation_of(body)
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "background": bool(body.get("background")),
        "conversation": None if conversation_id is None else {"id": conversation_id},
        **repeated_fields(body, is_stored=is_stored, passages_limit=passages_limit),
    }


@asynccontextmanager
async def answered(
    services: Services, model: Model, question: Question, head: Body, *, number: int = 0
) -> AsyncIterator["Answering"]:
    """The answer to a question, admitted by the model; of which so many events have been told.
    Leaving this frees what it holds in the engine."""
    limit = _calls_limit(services, question.body)
    question = await question.retrieved(services, model.vector_stores)
    if question.retrieval is not None:
        head = {**head, "retrieval": question.retrieval.told()}
    state = ResponseState(
        head,
        include=question.body.get("include") or (),
        annotate=question.annotations,
        clients=question.clients,
        number=number,
    )
    with named_as_sent(question.tool_places):
        cut = await cut_if_due(model, question)
        question = await fitting(model, question)
    moderation = moderated(services, question.body, question.own_messages)
    if moderation is not None and await moderation.withholds():
        yield Answering(question, WithheldRounds(), state, moderation)
        return
    thoughts = await Thoughts.wanted(model, question.body)
    async with Rounds(
        model,
        question,
        calls_limit=limit,
        tries=services.settings.structured_tries,
        cut=cut,
        moderation=moderation,
        thoughts=thoughts,
    ) as rounds:
        with named_as_sent(question.tool_places):
            await rounds.admit()
        yield Answering(question, rounds, state, moderation)


class Answering:
    """What happens in the rounds of a response, taken by its state: as events, or at once."""

    def __init__(
        self,
        question: Question,
        rounds: Rounds | WithheldRounds,
        state: ResponseState,
        moderation: Moderated | None,
    ) -> None:
        self.question = question
        self.state = state
        self._rounds = rounds
        self._moderation = moderation

    async def events(self) -> AsyncGenerator[Json, None]:
        """All events but the last, which is the state's `end`."""
        async with aclosing(self._rounds.said(self._output)) as said:
            async for happening in said:
                for event in self._take(happening):
                    yield event
        for event in await self._finish():
            yield event

    async def whole(self) -> None:
        """Take all that happens. What the model says is joined first: its pieces are of no use
        where nobody reads them."""
        transcript = Transcript()

        def said_until_now() -> Sequence[Json]:
            nonlocal transcript
            for delta in transcript.deltas():
                self.state.take(delta)
            transcript = Transcript()
            return self._output()

        try:
            async with aclosing(self._rounds.said(said_until_now)) as said:
                async for happening in said:
                    if isinstance(happening, ChatDelta):
                        transcript.add(happening)
                    else:
                        said_until_now()
                        self._take(happening)
        finally:
            said_until_now()
        await self._finish()

    def _output(self) -> Sequence[Json]:
        return self.state.output

    def _take(self, happening: Happening) -> list[Json]:
        match happening:
            case ChatDelta():
                return self.state.take(happening)
            case SummedUp(text=text):
                return self.state.sum_up(text)
            case RoundOver():
                return self.state.pause()
            case _:
                return self.state.tell(happening)

    async def _finish(self) -> list[Json]:
        usage = shown_usage(self._rounds.usage)
        more: Json = {}
        if self._moderation is not None:
            more["moderation"] = await self._moderation.told(results_in_lists=False)
        if self._rounds.left_out:
            more["truncated_items"] = self._rounds.left_out
        return self.state.finish(self._rounds.reason, usage, int(time.time()), more)


def _calls_limit(services: Services, body: Body) -> int:
    """How many calls of the server's tools may be run."""
    limit = services.settings.tool_calls_limit
    wanted = body.get("max_tool_calls")
    return limit if wanted is None else min(limit, int(wanted))


def shown_usage(usage: Usage) -> Json:
    """Tokens as a response tells them."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
