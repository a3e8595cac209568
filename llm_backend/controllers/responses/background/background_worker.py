"""Worker of background responses: answers queued jobs.

After a crash, a response is answered again if no part of its answer can have been sent: it is not
streamed, or only the events of its begin are stored. Otherwise it ends `failed`, because a second
answer would contradict the first. So does one that had begun and has tools whose calls may not run
twice (`mcp`).
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from llm_backend import errors
from llm_backend.access import Caller, RequestMeter
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.controllers.response_items.stored_events import to_stored_event
from llm_backend.controllers.responses.events.event_log import EventLog, as_lines
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.responses.input.resolved_request import open_request
from llm_backend.controllers.responses.loop.response_run import ResponseRun, open_run
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.stored_responses import to_stored_items
from llm_backend.durations import DAY_S
from llm_backend.json_types import JsonMapping
from llm_backend.store import (
    BackgroundResponseState,
    Events,
    Job,
    Missing,
    StoreError,
    StoreUnavailable,
    as_owner,
)

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


QUEUED, IN_PROGRESS = 1, 2  # sequence numbers of the events of these names
# While the model is overloaded or cannot be loaded, keys cannot be checked, or storage is
# unavailable.
ADMISSION_TIMEOUT_S = 600.0
# Pause after a process without the model has claimed the job, whose affinity is the model: one of
# an earlier version, or of a model that was removed meanwhile. It is longer than the poll interval
# of other processes (`runner.POLL_S`). The same process may be the next to claim it again, so that
# these claims do not count as attempts.
OTHER_PROCESS_DELAY_S = 6.0
# Age at which a process without the model fails a response: no process serves its model any more.
UNSERVED_TIMEOUT_S = DAY_S
RETRY_S = 2.0  # pause between attempts while the database is unavailable

log = logging.getLogger(__name__)

_Opened = TypeVar("_Opened")


class ResponseWorker:
    """Worker of response jobs. A job's details are the request's `body` without its input, and the
    request's `key_id`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def work(self, job: Job) -> None:
        """Answers a response from the start. If this process lacks the model, releases the job for
        other processes, until the response is `UNSERVED_TIMEOUT_S` old."""
        model = self._find_model(job.details["body"]["model"])
        if model is None:
            await self._leave_to_others(job)
        elif background_state := await self._services.background.begin(job):
            await _ResponseJob(self._services, job, background_state).answer(model)

    async def give_up(self, job: Job) -> None:
        """Fails a response that was attempted too often."""
        await self._fail(job, "The server failed to answer this several times; its log says why.")

    async def _leave_to_others(self, job: Job) -> None:
        """Releases the job for other processes; fails the response if it is too old."""
        try:
            response = await self._services.responses.responses.get(job.subject)
        except Missing:
            return
        if time.time() - response["created_at"] < UNSERVED_TIMEOUT_S:
            await self._services.jobs.release(job, delay_s=OTHER_PROCESS_DELAY_S, counts=False)
        else:
            name = job.details["body"]["model"]
            await self._fail(job, f"The model `{name}` is not served any more.")

    async def _fail(self, job: Job, message: str) -> None:
        if background_state := await self._services.background.begin(job):
            answer = _ResponseJob(self._services, job, background_state)
            await answer.fail(errors.Internal(message))

    def _find_model(self, name: str) -> LocalModel | None:
        try:
            return self._services.registry.local_target(name)
        except errors.ModelNotFound:
            return None


class _ResponseJob:
    """One response being answered; its events are stored if it is to be streamed."""

    def __init__(
        self, services: Services, job: Job, background_state: BackgroundResponseState
    ) -> None:
        self._services = services
        self._background = services.background
        self._job = job
        self._body: api.CreateResponse = job.details["body"]
        self._head = background_state.body
        self._input_items = [dict(stored.item) for stored in background_state.input]
        self._last_number = last_number = background_state.last_number
        self._is_streamed = last_number is not None
        self._number = 0 if last_number is None else last_number + 1  # of the next event

    async def answer(self, model: LocalModel) -> None:
        """Answers the response, and ends the response and its job."""
        async with EventLog(self._append) as event_log:
            state = await self._generate(model, event_log)
            await self._end(state, await event_log.drain())

    async def fail(self, error: errors.ApiError) -> None:
        """Fails a response that has not been answered."""
        state = ResponseState(self._head, number=self._number)
        state.fail(error)
        await self._end(state, ())

    async def _generate(self, model: LocalModel, event_log: EventLog) -> ResponseState:
        """Returns the state of the ended response, and logs all its events but the last."""
        state = ResponseState(self._head, number=self._number)
        try:
            self._check_repeatable()
            caller = await self._find_caller()
            metered = model.with_meter(self._meter(caller, model))
            with as_owner(caller.owner):
                async with self._open_run(metered) as run:
                    state = run.state
                    await (
                        self._log_events(run, event_log) if self._is_streamed else run.run_to_end()
                    )
        except errors.ApiError as error:
            events = state.fail(error)
            event_log.add(_to_stored_events(events, state) if self._is_streamed else ())
        except asyncio.CancelledError:
            await self._cancel(state)
            raise
        return state

    def _check_repeatable(self) -> None:
        """Raises `Internal` if an earlier attempt forbids another one."""
        was_sent = self._number > IN_PROGRESS + 1
        was_started = self._head["status"] == "in_progress"
        may_repeat = self._services.server_tools.may_be_repeated(self._body)
        if was_sent or (was_started and not may_repeat):
            raise errors.Internal("The server ended while it answered this; ask again.")

    async def _find_caller(self) -> Caller:
        """Returns the caller of the request; waits while keys cannot be checked."""
        find_caller_of = self._services.access.keyring.find_caller_of
        return await _retry_opening(partial(find_caller_of, self._job.details["key_id"]))

    def _meter(self, caller: Caller, model: LocalModel) -> RequestMeter:
        """Returns a meter that charges the caller of the request."""
        access, tier = self._services.access, self._body.get("service_tier")
        return RequestMeter(
            access.ledger,
            caller,
            kind="completions",
            model=model.card.id,
            service_tier=tier if isinstance(tier, str) and tier != "auto" else "default",
            check_model=partial(access.admission.check, caller),
        )

    @asynccontextmanager
    async def _open_run(self, model: LocalModel) -> AsyncIterator[ResponseRun]:
        """Opens the request and its run; waits while storage is unavailable, and while the model is
        overloaded."""
        async with AsyncExitStack() as stack:
            resolved = await _retry_opening(
                lambda: stack.enter_async_context(
                    open_request(self._services, model, self._body, self._input_items)
                )
            )
            yield await _retry_opening(
                lambda: stack.enter_async_context(
                    open_run(self._services, model, resolved, self._head, number=self._number)
                )
            )

    async def _log_events(self, run: ResponseRun, event_log: EventLog) -> None:
        if self._last_number == QUEUED:
            event_log.add([run.state.mark_in_progress()])
        async with aclosing(run.events()) as events:
            async for event in events:
                event_log.add(_to_stored_events([event], run.state))

    async def _append(self, events: Events) -> None:
        await _retry_write(lambda: self._background.append(self._job, events))

    async def _end(self, state: ResponseState, rest: Sequence[JsonMapping]) -> None:
        """Stores the end of the response, unless it was deleted. If its conversation was deleted,
        the response fails."""
        try:
            await self._store_end(state, rest)
        except Missing as missing:
            if missing.id == self._job.subject:
                return
            state.fail(errors.NotFound(f"The conversation `{missing.id}` has been deleted."))
            await self._store_end(state, rest)

    async def _store_end(self, state: ResponseState, rest: Sequence[JsonMapping]) -> None:
        last = Events()
        if self._is_streamed:
            last = as_lines([*rest, *_to_stored_events([state.end()], state)])
        body, output = state.response, to_stored_items(state.output)
        await _retry_write(lambda: self._background.finish(self._job, body, output, last))

    async def _cancel(self, state: ResponseState) -> None:
        """Stores the output so far of a cancelled response. At a shutdown it is dropped."""
        state.cancel()
        try:
            await self._background.keep_output(self._job.subject, to_stored_items(state.output))
        except StoreError as error:
            fields = {"response_id": self._job.subject, "reason": str(error)}
            log.error("response_not_stored", extra=fields)


def _to_stored_events(events: Sequence[JsonMapping], state: ResponseState) -> list[JsonMapping]:
    """Returns the events of a response as they are stored."""
    return [to_stored_event(event, state.output) for event in events]


async def _retry_opening(open: Callable[[], Awaitable[_Opened]]) -> _Opened:
    """Returns what `open` returns. Retries it for `ADMISSION_TIMEOUT_S` while it raises
    `ServiceUnavailable`; this is one attempt of the job."""
    until = time.monotonic() + ADMISSION_TIMEOUT_S
    while True:
        try:
            return await open()
        except errors.ServiceUnavailable as error:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(error.retry_after_s or RETRY_S)


async def _retry_write(write: Callable[[], Awaitable[None]]) -> None:
    """Retries a write while the database is unavailable; meanwhile the lease may expire."""
    while True:
        try:
            return await write()
        except StoreUnavailable as error:
            log.warning("response_not_stored_yet", extra={"reason": str(error)})
            await asyncio.sleep(RETRY_S)
