"""Client of an engine, in the API process: sends commands to a worker, and receives the deltas and
answers."""

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar, cast

from msgspec.structs import replace

from llm_backend.engine.config import EngineConfig
from llm_backend.engine.errors import CommandFailed, EngineDown
from llm_backend.engine.messages import (
    Delta,
    Detokenize,
    Detokenized,
    Diarize,
    Diarized,
    Draw,
    DrawingStep,
    Embed,
    Embedded,
    Event,
    Failed,
    Failure,
    Generate,
    ImageDrawn,
    LabelsScored,
    MediaItem,
    ModelInfo,
    Probe,
    Rank,
    RankScores,
    ScoreLabels,
    SlotAssigned,
    Speak,
    Spoken,
    Status,
    Tokenize,
    Tokenized,
    Transcribe,
    Transcribed,
)
from llm_backend.engine.process.engine_connection import Call, EngineConnection, Request
from llm_backend.engine.process.lifecycle import EngineLifecycle, EngineState
from llm_backend.engine.process.remote_engine import RemoteEngine
from llm_backend.engine.process.request_timing import RequestTiming
from llm_backend.engine.process.supervisor import Supervisor

_Answer = TypeVar(
    "_Answer",
    SlotAssigned,
    Delta,
    Detokenized,
    Embedded,
    RankScores,
    LabelsScored,
    Status,
    Tokenized,
    Transcribed,
    Spoken,
    Diarized,
    ImageDrawn,
)


class EngineClient:
    """One model in a worker process. The client supervises and restarts the worker, unless another
    process owns it (`for_remote_worker`).

    `async with EngineClient(config) as engine:` begins to load the model and does not wait for it;
    `ready` waits. Every call raises `CommandFailed` if the engine refuses the command, `EngineDown`
    if the engine process is not running.
    """

    def __init__(self, config: EngineConfig, lifecycle: EngineLifecycle | None = None) -> None:
        self.config = config
        self._lifecycle = lifecycle or Supervisor(config)
        self._numbers = itertools.count()

    @classmethod
    def for_remote_worker(cls, config: EngineConfig) -> Self:
        """Client of an engine that another process owns, which listens at `config.socket_path`."""
        return cls(config, RemoteEngine(config))

    async def __aenter__(self) -> "EngineClient":
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begins to load the model, without waiting for it."""
        self._lifecycle.start()

    async def close(self) -> None:
        """Shut down the process, or disconnect from it if another process owns it. Pending calls
        raise `EngineDown`."""
        await self._lifecycle.close()

    @property
    def state(self) -> EngineState:
        """State of the engine's lifecycle."""
        return self._lifecycle.state

    @property
    def is_unsupervised(self) -> bool:
        """True if no task keeps the engine alive any more, so that only another process can
        serve the model."""
        return self._lifecycle.is_unsupervised

    @property
    def info(self) -> ModelInfo | None:
        """Information about the loaded model; None until it is first loaded."""
        return self._lifecycle.info

    @property
    def pid(self) -> int | None:
        """Process id of the worker while there is one."""
        return self._lifecycle.pid

    async def ready(self) -> ModelInfo:
        """Waits until the model is loaded. Raises `EngineStartError` with the reason if it cannot
        be served now; a later start may succeed."""
        return await self._lifecycle.ready()

    async def generate(self, request: Generate) -> "Generation":
        """Submit a request; return when it has got its slot. The caller closes the returned
        generation. The id must differ from those of pending requests."""
        return Generation(self._lifecycle, *await self._admit(request))

    async def score_labels(self, request: ScoreLabels) -> "Scoring":
        """Submit questions; return when the first one has got its slot. The caller closes the
        returned scoring. The id must differ from those of pending requests."""
        return Scoring(self._lifecycle, *await self._admit(request))

    async def embed(self, inputs: list[str | list[int]]) -> Embedded:
        """Embeddings, one vector for each input."""
        return _expect(await self._request(Embed(id=self._next_id(), inputs=inputs)), Embedded)

    async def rank(self, query: str, documents: list[str]) -> RankScores:
        """Relevance of each document to the query."""
        command = Rank(id=self._next_id(), query=query, documents=documents)
        return _expect(await self._request(command), RankScores)

    async def transcribe(self, window: Transcribe) -> Transcribed:
        """Transcript of one window of a recording; the command's id is set here."""
        command = replace(window, id=self._next_id())
        return _expect(await self._request(command), Transcribed)

    async def speak(self, sentence: Speak) -> Spoken:
        """Audio of one sentence of a text; the command's id is set here."""
        command = replace(sentence, id=self._next_id())
        return _expect(await self._request(command), Spoken)

    async def diarize(self, block: Diarize) -> Diarized:
        """Speakers of one block of a recording; the command's id is set here."""
        command = replace(block, id=self._next_id())
        return _expect(await self._request(command), Diarized)

    async def draw(
        self, image: Draw
    ) -> AsyncGenerator[SlotAssigned | DrawingStep | ImageDrawn, None]:
        """Yields `SlotAssigned` when the drawing begins, then its steps, then the image; the
        command's id is set here. Closing the generator cancels it. Of steps that are not read in
        time, only the latest is kept."""
        command = replace(image, id=self._next_id())
        connection, call = self._begin_call(command)
        try:
            while True:
                event = await call.next()
                if isinstance(event, SlotAssigned | DrawingStep):
                    yield event
                    continue
                drawn = _expect(event, ImageDrawn)
                self._lifecycle.poison_requests.clear(command)
                yield drawn
                return
        finally:
            connection.end_call(call)

    async def tokenize(
        self,
        text: str,
        *,
        cuts: Sequence[int] = (),
        parse_special: bool = True,
        add_bos: bool = False,
    ) -> list[int]:
        """The tokens of a text; none spans a cut."""
        tokens = await self.tokenize_with_media(
            text, cuts=cuts, parse_special=parse_special, add_bos=add_bos
        )
        return cast(list[int], tokens)  # only media have None

    async def tokenize_with_media(
        self,
        text: str,
        *,
        cuts: Sequence[int] = (),
        media: Sequence[MediaItem] = (),
        parse_special: bool = True,
        add_bos: bool = False,
    ) -> list[int | None]:
        """The tokens of a text with images and audio; each token of media is None."""
        command = Tokenize(
            id=self._next_id(),
            text=text,
            cuts=list(cuts),
            media=list(media),
            parse_special=parse_special,
            add_bos=add_bos,
        )
        return _expect(await self._request(command), Tokenized).tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """The text of tokens."""
        command = Detokenize(id=self._next_id(), tokens=tokens)
        return _expect(await self._request(command), Detokenized).text

    async def status(self) -> Status:
        """Current status of the engine; it answers between two passes."""
        return _expect(await self._request(Probe(id=self._next_id())), Status)

    async def _admit(
        self, request: Generate | ScoreLabels
    ) -> tuple[EngineConnection, Call, SlotAssigned, RequestTiming]:
        timing = RequestTiming()
        connection, call = self._begin_call(request)
        try:
            slot_assigned = _expect(await call.next(), SlotAssigned)
        except BaseException:  # also if the caller is cancelled while its request is queued
            connection.end_call(call)
            raise
        timing.record_slot()
        return connection, call, slot_assigned, timing

    async def _request(self, command: Request) -> Event:
        connection, call = self._begin_call(command)
        try:
            event = await call.next()
        finally:
            connection.end_call(call)
        if not isinstance(event, Failed):  # a failed command may still be poison
            self._lifecycle.poison_requests.clear(command)
        return event

    def _begin_call(self, command: Request) -> tuple[EngineConnection, Call]:
        connection = self._lifecycle.connection()
        try:
            if self._lifecycle.poison_requests.is_quarantined(command):
                raise CommandFailed(
                    Failure.CRASHED,
                    "The engine process crashed repeatedly while it computed this request; "
                    "it is quarantined.",
                )
            return connection, connection.call(command)
        except UnicodeEncodeError as error:
            message = f"A text holds half of a surrogate pair at offset {error.start}."
            raise CommandFailed(Failure.INVALID, message) from error

    def _next_id(self) -> str:
        return f"engine-{next(self._numbers)}"


@dataclass(eq=False)
class _AdmittedCall:
    """A request that has got a slot."""

    _lifecycle: EngineLifecycle
    _connection: EngineConnection
    _call: Call
    slot_assigned: SlotAssigned
    timing: RequestTiming


class Scoring(_AdmittedCall):
    """A `ScoreLabels` that has got a slot: await its `answer`; leaving the context cancels it."""

    async def answer(self) -> LabelsScored:
        """Waits for the logprobs. Raises `EngineDown` if the process dies, `CommandFailed` if the
        engine fails the request."""
        scored = _expect(await self._call.next(), LabelsScored)
        self.timing.record_delta()
        self._lifecycle.poison_requests.clear(self._call.command)
        return scored

    async def __aenter__(self) -> "Scoring":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection.end_call(self._call)


@dataclass(eq=False)
class Generation(_AdmittedCall):
    """A request that has got a slot: iterate its deltas, then `aclose`, which cancels the rest.

    Iteration raises `EngineDown` if the process dies, `CommandFailed` if the engine fails the
    request. Deltas that are not read in time are joined.
    """

    def __post_init__(self) -> None:
        command = self._call.command
        self._unfinished = command.n if isinstance(command, Generate) else 0

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if not self._unfinished:
            raise StopAsyncIteration
        try:
            delta = _expect(await self._call.next(), Delta)
        except (EngineDown, CommandFailed):
            self._unfinished = 0
            raise
        self.timing.record_delta()
        if delta.finish_reason is not None:
            self._unfinished -= 1
            if not self._unfinished:
                self._lifecycle.poison_requests.clear(self._call.command)
        return delta

    async def __aenter__(self) -> "Generation":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancels the request; its slot is freed in the next step."""
        self._unfinished = 0
        self._connection.end_call(self._call)


def _expect(event: Event, kind: type[_Answer]) -> _Answer:
    """Returns the expected event; raises `CommandFailed` for a failure."""
    if isinstance(event, Failed):
        raise CommandFailed(event.failure, event.message, event.field, event.location)
    assert isinstance(event, kind), f"the worker answered with {type(event).__name__}"
    return event
