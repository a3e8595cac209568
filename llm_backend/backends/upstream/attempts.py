"""Attempts of one request: upstreams that may answer it, those tried, and retry decisions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from llm_backend.backends.upstream.answer_kinds import ANY, Due
from llm_backend.backends.upstream.headers import UpstreamAnswer
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.retry import ATTEMPTS, GIVEN_UP, REFUSED, is_safe, names_itself
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.backends.upstream.websockets import UpstreamSocket
from llm_backend.errors import Overloaded, UpstreamError

__all__ = ["Attempts"]


@dataclass
class Attempts:
    """State of one request's attempts: the upstreams that may answer it, and those tried."""

    asked: UpstreamRequest
    upstreams: list[Upstream]
    due: Due = ANY
    tried: list[str] = field(default_factory=list)
    _is_body_begun: bool = False
    # Upstream that may have got the request, and deduplicates it by its idempotency key.
    _only: Upstream | None = None

    @property
    def names(self) -> Sequence[str]:
        """Names of the upstreams that may be tried."""
        return tuple(one.name for one in self._allowed)

    @property
    def longest_wait_s(self) -> float:
        return max(one.config.connect_timeout_s for one in self.upstreams)

    def wanted(self) -> list[Upstream]:
        """Returns the upstreams that are not ejected, only untried ones if there are any.

        If every upstream is ejected, all are returned: an ejected upstream beats a certain 503.
        Raises `Overloaded` instead if another backend can answer."""
        ones = self._able
        return [one for one in ones if one.name not in self.tried] or ones

    def still_wants(self, upstream: Upstream) -> bool:
        """Returns True if this upstream is not ejected, or all are."""
        now_s = asyncio.get_running_loop().time()
        return upstream.health.admits(now_s) or not any(
            one.health.admits(now_s) for one in self._allowed
        )

    def candidates(self) -> list[Upstream]:
        """Returns the upstreams below their concurrency limit that are not ejected (or all are),
        only untried ones if there are any."""
        with_room = [one for one in self._able if one.has_room]
        return [one for one in with_room if one.name not in self.tried] or with_room

    async def send(self, upstream: Upstream) -> UpstreamAnswer:
        asked = self.asked
        self.tried.append(upstream.name)
        return await upstream.exchange(
            method=asked.method,
            path=asked.path,
            query=asked.query,
            headers=asked.headers,
            body=asked.body if isinstance(asked.body, bytes) else self._watched(asked.body),
            model=asked.model,
            due=self.due,
            on_left=asked.on_left,
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
        """Returns True if the request may be retried after this error. If an upstream may have got
        it and deduplicates it by its key, only that one gets it again."""
        is_others_turn = self.asked.has_other or error.is_lasting
        if not (self.has_untried if is_others_turn else self._has_more_tries):
            return False
        if not error.was_sent or is_safe(self.asked.method):
            return True
        last = next(one for one in self.upstreams if one.name == self.tried[-1])
        if self.asked.has_other or not last.config.honours_idempotency_key:
            return False
        self._only = last
        return names_itself(self.asked.headers)

    def is_refused(self, relayed: UpstreamAnswer) -> bool:
        """Returns True for an answer after which another upstream or backend should be tried."""
        if self.asked.has_other:
            return relayed.status in GIVEN_UP
        return relayed.status in REFUSED and self.has_untried

    @property
    def has_untried(self) -> bool:
        """True if an untried upstream and a further attempt are left."""
        has_another = any(one.name not in self.tried for one in self._allowed)
        return has_another and self._has_more_tries

    @property
    def _able(self) -> list[Upstream]:
        now_s = asyncio.get_running_loop().time()
        allowed = self._allowed
        well = [one for one in allowed if one.health.admits(now_s)]
        if not well and self.asked.has_other:
            raise Overloaded("No upstream that could answer is up.")
        return well or allowed

    @property
    def _allowed(self) -> list[Upstream]:
        return [self._only] if self._only else self.upstreams

    @property
    def _has_more_tries(self) -> bool:
        return len(self.tried) < ATTEMPTS and not self._is_body_begun

    async def _watched(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._is_body_begun = True
        async for piece in body:
            yield piece
