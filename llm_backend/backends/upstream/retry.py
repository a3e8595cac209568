"""Whether and when a request that failed goes out again (pure)."""

from llm_backend.backends.upstream.headers import Headers

__all__ = [
    "ATTEMPTS",
    "DOWN",
    "GIVEN_UP",
    "REFUSED",
    "SHUT_OUT",
    "is_safe",
    "names_itself",
    "pause_s",
]

ATTEMPTS = 3
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110, 9.2.2

SHUT_OUT = frozenset({401, 403})
"""Answers that refuse whoever asks: always this server, as no client's key is sent on."""
REFUSED = frozenset({429, 503, 529})
"""Answers that say that nothing was done: another upstream may be asked instead."""
DOWN = frozenset({502, 503, 504, 529})
"""Answers that say that an upstream, or what stands behind it, cannot answer."""
GIVEN_UP = REFUSED | DOWN | {500}
"""Answers that are given up where a route names somebody else who may answer."""


def is_safe(method: str) -> bool:
    """Whether sending it twice, to whomever, is as good as once."""
    return method in _SAFE_METHODS


def names_itself(headers: Headers) -> bool:
    """Whether it has a key by which an upstream can tell that it comes again."""
    return any(name.lower() == b"idempotency-key" for name, _ in headers)


def pause_s(attempt: int, draw: float) -> float:
    """Seconds before the attempt of this number, from 1: twice as long each time, of which half is
    left to chance (`draw`, from 0 to 1), so that clients do not come back all at once."""
    longest = min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S)
    return longest * (1 + draw) / 2
