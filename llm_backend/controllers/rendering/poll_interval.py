"""When a client that waits for something is to look again, as OpenAI's SDKs read it. Pure."""

__all__ = ["poll_headers"]

_HEADER = "openai-poll-after-ms"
_LEAST_MS, _MOST_MS = 200, 5000
_PER_SECOND_MS = 100  # of the time that it has taken already
_PER_PART_MS = 20


def poll_headers(created_at: float, now: float, *, left: int = 1) -> dict[str, str]:
    """The header for something of this age of which so many parts are left to be done: a tenth of
    its age, and longer where much is left, as some SDKs read only the first of these headers."""
    wait_ms = max((now - created_at) * _PER_SECOND_MS, left * _PER_PART_MS)
    return {_HEADER: str(round(min(max(wait_ms, _LEAST_MS), _MOST_MS)))}
