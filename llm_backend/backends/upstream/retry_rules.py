"""Retry policy: retriable statuses and methods, and the backoff between attempts (pure).

These are the attempts of one target, which `pool.py` makes. The other layer is the fallback of a
route to its next target, after them: `controllers/relay/routing.py`.

The `Retry-After` of an upstream does not change the backoff; it is passed to the client.
"""

from llm_backend.backends.upstream.headers import Headers
from llm_backend.backoff import backoff_delay_s

ATTEMPTS_PER_TARGET = 3
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, 9.2.2

KEY_REJECTED = frozenset({401, 403})
"""Statuses by which an upstream rejects this server's key. Clients' keys are not passed on."""
BUSY = frozenset({429, 503, 529})
"""Statuses that say that nothing was done: the request may be retried at another upstream."""
DOWN = frozenset({502, 503, 504, 529})
"""Statuses that say that an upstream, or a server behind it, is down."""
FALLBACK = BUSY | DOWN | {500}
"""Statuses after which a route falls back to its next target; `routing.FALLBACK_ERRORS` are the
errors that correspond to them."""


def is_idempotent(method: str) -> bool:
    """Returns True for an idempotent method, which may be sent twice (RFC 9110, 9.2.2)."""
    return method in _IDEMPOTENT_METHODS


def has_idempotency_key(headers: Headers) -> bool:
    """Returns True if the request has an `Idempotency-Key`."""
    return any(name.lower() == b"idempotency-key" for name, _ in headers)


def backoff_s(attempt: int, draw: float) -> float:
    """Returns the exponential backoff in seconds after the attempt of this number, from 1. Half of
    it is jitter (`draw`, from 0 to 1), so that failed requests are not all retried at the same
    time."""
    longest = backoff_delay_s(_FIRST_PAUSE_S, attempt, _LONGEST_PAUSE_S)
    return longest * (1 + draw) / 2
