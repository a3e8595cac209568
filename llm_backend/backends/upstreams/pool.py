"""All upstreams: one that can answer is found, asked, and given up for another where it fails."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from llm_backend.backends.relayed import Relayed
from llm_backend.backends.upstreams.asked import Asked
from llm_backend.backends.upstreams.balance import Balance
from llm_backend.backends.upstreams.choice import Choices
from llm_backend.backends.upstreams.config import WIRES, Wire
from llm_backend.backends.upstreams.http import Upstream
from llm_backend.backends.upstreams.retry import (
    ATTEMPTS,
    GIVEN_UP,
    REFUSED,
    is_safe,
    may_repeat,
    pause_s,
)
from llm_backend.backends.upstreams.sockets import UpstreamSocket
from llm_backend.errors import ApiError, Overloaded, UpstreamError, UpstreamFailed

__all__ = ["Upstreams"]

Answer = TypeVar("Answer")

_RETRY_AFTER_S = 1.0
_ROOM_CHECKED_S = 0.02  # looking is cheap, and nobody who waits for room is forgotten


class Upstreams:
    """Opened and closed by `async with`, with every upstream in it.

    A request goes to the least busy of those that may answer it, are well and have room. It goes
    out again, to another one if there is, where nothing of it was sent, where the answer says that
    nothing was done, or where sending it twice does no harm; up to three times.
    """

    def __init__(
        self, upstreams: Sequence[Upstream], operations: Mapping[str, str] | None = None
    ) -> None:
        self._upstreams = {one.name: one for one in upstreams}
        self.choices = Choices([one.config for one in upstreams], operations)
        self._balance = Balance()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for upstream in self._upstreams.values():
            await self._stack.enter_async_context(upstream)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def exchange(self, asked: Asked) -> Relayed:
        """Sends a request and returns the answer as soon as its headers are there.

        Raises `UpstreamError`, `Overloaded` where all are busy, and what `Upstream.exchange` does.
        """
        attempt = _Attempts(asked, self._may_answer(asked))
        while True:
            relayed = await self._sent(attempt, attempt.send)
            if not attempt.is_refused(relayed):
                return relayed
            await relayed.aclose()
            if not attempt.has_untried:
                raise UpstreamFailed("The upstream did not answer the request.")
            await _pause(attempt)

    async def connect(self, asked: Asked, protocols: Sequence[str]) -> UpstreamSocket:
        """Opens a WebSocket; the subprotocols are those to choose from. Raises as `exchange`, and
        the error of its status where an upstream refuses."""
        attempt = _Attempts(asked, self._may_answer(asked))
        return await self._sent(attempt, lambda upstream: attempt.connect(upstream, protocols))

    async def _sent(
        self, attempt: "_Attempts", send: Callable[[Upstream], Awaitable[Answer]]
    ) -> Answer:
        """What the first upstream answers whose failure does not let another be asked."""
        while True:
            upstream = await self._next(attempt)
            try:
                return await send(upstream)
            except UpstreamError as error:
                if not attempt.may_go_on(error):
                    raise
            await _pause(attempt)

    def serves(self, model: str, operation: Sequence[str] = ()) -> bool:
        """Whether one of them can be asked for a model."""
        return self.choices.serves(model, operation)

    def speak(self, wire: Wire, model: str, upstream: str | None, operation: Sequence[str]) -> bool:
        """Whether one of those that may answer for a model can be asked so."""
        named = [upstream] if upstream else self.choices.for_model(model, tuple(operation))
        return any(self._upstreams[name].config.speaks(wire) for name in named)

    async def models(self) -> list[Mapping[str, Any]]:
        """The models of all upstreams, the first of a name; one that is down hides only its own."""
        lists = await asyncio.gather(*(_offered(one) for one in self._upstreams.values()))
        found: dict[str, Mapping[str, Any]] = {}
        for listed in lists:
            for model in listed:
                found.setdefault(model["id"], model)
        return list(found.values())

    def _may_answer(self, asked: Asked) -> list[Upstream]:
        names: Sequence[str] = ()
        if asked.upstream is not None:
            names = [asked.upstream]
        elif asked.model is not None:
            names = self.choices.for_model(asked.model, tuple(asked.operation))
        names = names or self.choices.for_operation(asked.operation)
        upstreams = [self._upstreams[name] for name in names]
        wire = asked.wire or WIRES.get(asked.operation[0]) if asked.operation else asked.wire
        return [one for one in upstreams if one.config.speaks(wire)] or upstreams

    async def _next(self, attempt: "_Attempts") -> Upstream:
        """The upstream to ask, as soon as one has room; raises `Overloaded` where none gets any."""
        waits_s = 0.0 if attempt.asked.has_other else attempt.longest_wait_s
        clock = asyncio.get_running_loop().time
        until = clock() + waits_s
        while not (free := attempt.candidates(clock())):
            if clock() >= until:
                message = "Every upstream that could answer is busy; try again."
                raise Overloaded(message, retry_after_s=_RETRY_AFTER_S)
            await asyncio.sleep(_ROOM_CHECKED_S)
        return self._balance.choose(free)


@dataclass
class _Attempts:
    """One request's ways: who may answer it, who has been tried."""

    asked: Asked
    upstreams: list[Upstream]
    tried: list[str] = field(default_factory=list)
    _is_body_begun: bool = False

    @property
    def longest_wait_s(self) -> float:
        return max(one.config.connect_timeout_s for one in self.upstreams)

    def candidates(self, now_s: float) -> list[Upstream]:
        """Those that are well and have room, untried ones first. Where all are ill, all are asked:
        nobody is worse off by it, unless somebody else can answer."""
        well = [one for one in self.upstreams if one.health.admits(now_s)]
        if not well and self.asked.has_other:
            raise Overloaded("No upstream that could answer is up.", retry_after_s=_RETRY_AFTER_S)
        with_room = [one for one in well or self.upstreams if one.has_room]
        return [one for one in with_room if one.name not in self.tried] or with_room

    async def send(self, upstream: Upstream) -> Relayed:
        asked = self.asked
        self.tried.append(upstream.name)
        return await upstream.exchange(
            method=asked.method,
            path=asked.path,
            query=asked.query,
            headers=asked.headers,
            body=asked.body if isinstance(asked.body, bytes) else self._watched(asked.body),
            model=asked.model,
        )

    async def connect(self, upstream: Upstream, protocols: Sequence[str]) -> UpstreamSocket:
        asked = self.asked
        self.tried.append(upstream.name)
        return await upstream.connect(
            path=asked.path,
            query=asked.query,
            headers=asked.headers,
            protocols=protocols,
            model=asked.model,
        )

    def may_go_on(self, error: UpstreamError) -> bool:
        """Whether the request may be sent again after this failure."""
        safe = is_safe(self.asked.method, self.asked.headers)
        is_others_turn = self.asked.has_other or error.is_lasting
        can_go_on = self.has_untried if is_others_turn else self._has_more_tries
        return can_go_on and may_repeat(error, safe=safe)

    def is_refused(self, relayed: Relayed) -> bool:
        """Whether an answer only says that somebody else should be asked, who is there."""
        if self.asked.has_other:
            return relayed.status in GIVEN_UP
        return relayed.status in REFUSED and self.has_untried

    @property
    def has_untried(self) -> bool:
        """Whether there is one to send it to that has not been asked."""
        has_another = any(one.name not in self.tried for one in self.upstreams)
        return has_another and self._has_more_tries

    @property
    def _has_more_tries(self) -> bool:
        return len(self.tried) < ATTEMPTS and not self._is_body_begun

    async def _watched(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._is_body_begun = True
        async for piece in body:
            yield piece


async def _pause(attempt: _Attempts) -> None:
    await asyncio.sleep(pause_s(len(attempt.tried), random.random()))


async def _offered(upstream: Upstream) -> list[dict[str, Any]]:
    named = [{"id": name, "object": "model", "created": 0, "owned_by": "upstream"}
             for name in upstream.config.named_models]  # fmt: skip
    if not upstream.config.lists_models:
        return named
    try:
        listed = await upstream.models()
    except ApiError:  # logged where it happened
        return []
    return [model for model in listed if upstream.config.may_list(model["id"])]
