"""Attempts of one request: upstreams that may answer it, those tried, and retry decisions."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from llm_backend.backends.upstream.answer_kinds import ANY, AnswerKinds
from llm_backend.backends.upstream.http import Upstream
from llm_backend.backends.upstream.retry_rules import (
    ATTEMPTS_PER_TARGET,
    BUSY,
    FALLBACK,
    has_idempotency_key,
    is_idempotent,
)
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.backends.upstream.websockets import UpstreamSocket
from llm_backend.errors import ServiceUnavailable, UpstreamError


@dataclass
class Attempts:
    """State of one request's attempts: the upstreams that may answer it, and those tried.

    With one process, the pool takes an upstream `with_free_permit`. With several, `PermitClient`
    requests a permit of one of the `candidates` from the permit server, and then checks that it
    `may_still_use` that one, which may have been ejected while the request waited."""

    request: UpstreamRequest
    upstreams: list[Upstream]
    expected: AnswerKinds = ANY
    tried: list[str] = field(default_factory=list)
    _is_body_begun: bool = False
    # Upstream that may have got the request, and deduplicates it by its idempotency key.
    _pinned: Upstream | None = None

    @property
    def names(self) -> Sequence[str]:
        """Names of the upstreams that may be tried."""
        return tuple(one.name for one in self._allowed)

    @property
    def queue_timeout_s(self) -> float:
        """Seconds to wait for a permit: the longest `connect_timeout_s` of the upstreams."""
        return max(one.config.connect_timeout_s for one in self.upstreams)

    def candidates(self) -> list[Upstream]:
        """Returns the upstreams to choose from: those that are not ejected, and of these only the
        untried ones, if any.

        If every upstream is ejected, all are returned: trying an ejected upstream is better than a
        503 without a try. Raises `ServiceUnavailable` instead if another backend can answer."""
        upstreams = self._available
        return [one for one in upstreams if one.name not in self.tried] or upstreams

    def may_still_use(self, upstream: Upstream) -> bool:
        """Returns True if this upstream is not ejected, or all are."""
        now_s = asyncio.get_running_loop().time()
        return upstream.health.admits(now_s) or not any(
            one.health.admits(now_s) for one in self._allowed
        )

    def with_free_permit(self) -> list[Upstream]:
        """Returns the upstreams below their concurrency limit that are not ejected (or all are);
        of these only the untried ones, if any."""
        free = [one for one in self._available if one.has_free_permit]
        return [one for one in free if one.name not in self.tried] or free

    async def send(self, upstream: Upstream) -> UpstreamAnswer:
        request = self.request
        self.tried.append(upstream.name)
        request.on_attempt(upstream.name)
        try:
            return await upstream.exchange(
                method=request.method,
                path=request.path,
                query=request.query,
                headers=request.headers,
                body=request.body
                if isinstance(request.body, bytes)
                else self._track_body(request.body),
                model=request.model,
                expected=self.expected,
                on_abandoned=request.on_abandoned,
            )
        except BaseException:
            request.on_attempt(None)
            raise

    async def connect(self, upstream: Upstream, protocols: Sequence[str]) -> UpstreamSocket:
        request = self.request
        self.tried.append(upstream.name)
        return await upstream.connect(
            path=request.path,
            query=request.query,
            headers=request.headers,
            protocols=protocols,
            model=request.model,
        )

    def prepare_retry(self, error: UpstreamError) -> bool:
        """Returns True if the request may be retried after this error. An upstream that may have
        got the request, and deduplicates it by its key, then gets all further attempts."""
        needs_untried = self.request.has_fallback or error.is_permanent
        if not (self.has_untried if needs_untried else self._has_more_tries):
            return False
        if not error.may_be_processed or is_idempotent(self.request.method):
            return True
        last = next(one for one in self.upstreams if one.name == self.tried[-1])
        is_deduplicated = last.config.honours_idempotency_key and has_idempotency_key(
            self.request.headers
        )
        if self.request.has_fallback or not is_deduplicated:
            return False
        self._pinned = last
        return True

    def is_retriable_answer(self, relayed: UpstreamAnswer) -> bool:
        """Returns True for an answer after which another upstream or backend should be tried."""
        if self.request.has_fallback:
            return relayed.status in (BUSY if self.request.is_at_most_once else FALLBACK)
        return relayed.status in BUSY and self.has_untried

    @property
    def has_untried(self) -> bool:
        """True if an untried upstream and a further attempt are left."""
        has_another = any(one.name not in self.tried for one in self._allowed)
        return has_another and self._has_more_tries

    @property
    def _available(self) -> list[Upstream]:
        now_s = asyncio.get_running_loop().time()
        allowed = self._allowed
        admitting = [one for one in allowed if one.health.admits(now_s)]
        if not admitting and self.request.has_fallback:
            raise ServiceUnavailable("No upstream that could answer is up.")
        return admitting or allowed

    @property
    def _allowed(self) -> list[Upstream]:
        return [self._pinned] if self._pinned else self.upstreams

    @property
    def _has_more_tries(self) -> bool:
        return len(self.tried) < ATTEMPTS_PER_TARGET and not self._is_body_begun

    async def _track_body(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self._is_body_begun = True
        async for piece in body:
            yield piece
