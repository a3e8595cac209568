"""Worker of background responses: answers queued jobs.

A response that is not streamed may be answered again after a crash, as none of it has been sent.
One whose events have been stored cannot be answered differently: it ends `failed`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from llm_backend import errors
from llm_backend.access import Caller, RequestMeter, metering
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.controllers.responses.events.event_log import EventLog, as_lines
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.responses.input.resolved_request import ResolvedRequest, open_request
from llm_backend.controllers.responses.loop.response_run import ResponseRun, open_run
from llm_backend.controllers.responses.response_memory import to_stored_items
from llm_backend.controllers.responses.unshown import event_as_stored
from llm_backend.controllers.services import Services
from llm_backend.store import (
    Events,
    Job,
    Missing,
    Standing,
    StoreError,
    StoreUnavailable,
    as_owner,
)

__all__ = ["ResponseWorker"]

Body = Mapping[str, Any]

QUEUED, IN_PROGRESS = 1, 2  # sequence numbers of these events
PATIENCE_S = 600.0  # for a model that is overloaded or cannot be loaded
ELSEWHERE_S = 6.0  # until a model of another process is tried again: others poll every five
RETRY_S = 2.0  # while the database is unavailable

log = logging.getLogger(__name__)


class ResponseWorker:
    """Worker of response jobs. A job's details are the request's `body` without its input, and the
    request's `key_id`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def work(self, job: Job) -> None:
        """Answers a response from the start. If this process lacks the model, the job is released
        for others, and given up after some attempts."""
        model = self._local(job.details["body"]["model"])
        if model is None:
            await self._services.jobs.give_back(job, delay_s=ELSEWHERE_S, counts=True)
        elif standing := await self._services.background.begin(job):
            await _Answer(self._services, job, standing).give(model)

    async def give_up(self, job: Job) -> None:
        """Fails a response that was attempted too often."""
        name = job.details["body"]["model"]
        why = "The server has ended each time while it answered this; ask for less."
        gone = f"The model `{name}` is not served any more."
        if standing := await self._services.background.begin(job):
            answer = _Answer(self._services, job, standing)
            await answer.fail(errors.Internal(why if self._local(name) else gone))

    def _local(self, name: str) -> LocalModel | None:
        try:
            return self._services.registry.local_step(name)
        except errors.ModelNotFound:
            return None


class _Answer:
    """One response being answered; its events are stored if it is to be streamed."""

    def __init__(self, services: Services, job: Job, standing: Standing) -> None:
        self._services = services
        self._background = services.background
        self._job = job
        self._body: Body = job.details["body"]
        self._head = standing.body
        self._own = [dict(stored.item) for stored in standing.input]
        self._last_number = standing.last_number
        self._is_streamed = standing.last_number is not None
        self._number = 0 if standing.last_number is None else standing.last_number + 1

    async def give(self, model: LocalModel) -> None:
        """Answers the response; response and job have ended on return."""
        async with EventLog(self._append) as told:
            state = await self._answered(model, told)
            await self._end(state, await told.rest())

    async def fail(self, error: errors.ApiError) -> None:
        """Fails a response that has not been answered."""
        state = ResponseState(self._head, number=self._number)
        state.fail(error)
        await self._end(state, ())

    async def _answered(self, model: LocalModel, told: EventLog) -> ResponseState:
        """Returns the state of the ended response; all its events but the last are in the log."""
        state = ResponseState(self._head, number=self._number)
        try:
            self._check_repeatable()
            caller = self._services.access.keyring.caller_of(self._job.details["key_id"])
            with metering(self._meter(caller, model)), as_owner(caller.owner):
                async with (
                    open_request(self._services, model, self._body, self._own) as question,
                    self._admitted(model, question) as answering,
                ):
                    state = answering.state
                    await (self._tell(answering, told) if self._is_streamed else answering.whole())
        except errors.ApiError as error:
            events = state.fail(error)
            told.add(_stored(events, state) if self._is_streamed else ())
        except asyncio.CancelledError:
            await self._leave(state)
            raise
        return state

    def _check_repeatable(self) -> None:
        """Raises `Internal` if an earlier attempt cannot be repeated."""
        was_told = self._number > IN_PROGRESS + 1
        was_begun = self._head["status"] == "in_progress"
        may_repeat = self._services.server_tools.may_be_repeated(self._body)
        if was_told or (was_begun and not may_repeat):
            raise errors.Internal("The server ended while it answered this; ask again.")

    def _meter(self, caller: Caller, model: LocalModel) -> RequestMeter:
        """Returns a meter that charges the caller of the request."""
        access, tier = self._services.access, self._body.get("service_tier")
        return RequestMeter(
            access.ledger,
            caller,
            kind="completions",
            model=model.card.id,
            service_tier=tier if isinstance(tier, str) and tier != "auto" else "default",
        )

    @asynccontextmanager
    async def _admitted(
        self, model: LocalModel, question: ResolvedRequest
    ) -> AsyncIterator[ResponseRun]:
        """Opens the run, retried for `PATIENCE_S` while the model is overloaded."""
        until = time.monotonic() + PATIENCE_S
        async with AsyncExitStack() as stack:
            while True:
                taking = open_run(self._services, model, question, self._head, number=self._number)
                try:
                    answering = await stack.enter_async_context(taking)
                    break
                except errors.Overloaded as error:
                    if time.monotonic() > until:
                        raise
                    await asyncio.sleep(error.retry_after_s or RETRY_S)
            yield answering

    async def _tell(self, answering: ResponseRun, told: EventLog) -> None:
        if self._last_number == QUEUED:
            told.add([answering.state.proceed()])
        async with aclosing(answering.events()) as events:
            async for event in events:
                told.add(_stored([event], answering.state))

    async def _append(self, told: Events) -> None:
        await _durably(lambda: self._background.append(self._job, told))

    async def _end(self, state: ResponseState, rest: Sequence[Body]) -> None:
        """Stores the end of the response. A deleted response is ignored; a deleted conversation
        fails the response."""
        try:
            await self._put(state, rest)
        except Missing as missing:
            if missing.id == self._job.subject:
                return
            state.fail(errors.NotFound(f"The conversation `{missing.id}` has been deleted."))
            await self._put(state, rest)

    async def _put(self, state: ResponseState, rest: Sequence[Body]) -> None:
        last = Events()
        if self._is_streamed:
            last = as_lines([*rest, *_stored([state.end()], state)])
        body, output = state.response, to_stored_items(state.output)
        await _durably(lambda: self._background.finish(self._job, body, output, last))

    async def _leave(self, state: ResponseState) -> None:
        """Stores the output so far if the response was cancelled; at a shutdown it is dropped."""
        state.leave()
        try:
            await self._background.keep_output(self._job.subject, to_stored_items(state.output))
        except StoreError as error:
            told = {"response_id": self._job.subject, "reason": str(error)}
            log.error("response_not_stored", extra=told)


def _stored(events: Sequence[Body], state: ResponseState) -> list[Body]:
    """Returns the events of a response as they are stored."""
    return [event_as_stored(event, state.output) for event in events]


async def _durably(write: Callable[[], Awaitable[None]]) -> None:
    """Retries a write while the database is unavailable; meanwhile the lease may expire."""
    while True:
        try:
            return await write()
        except StoreUnavailable as error:
            log.warning("response_not_stored_yet", extra={"reason": str(error)})
            await asyncio.sleep(RETRY_S)
