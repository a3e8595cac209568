"""Poll interval for clients that wait for a job, in a header of OpenAI's SDKs. Pure."""

_HEADER = "openai-poll-after-ms"
_LEAST_MS, _MOST_MS = 200, 5000
_PER_SECOND_MS = 100  # pause per second of the object's age
_PER_PART_MS = 20


def poll_headers(created_at: float, now: float, *, unfinished: int = 1) -> dict[str, str]:
    """Returns the poll header of an object with this age and number of `unfinished` parts. The
    interval is a tenth of its age. It is longer if many parts are unfinished: some SDKs read this
    header only in the first answer, and would keep the short interval of a new object."""
    wait_ms = max((now - created_at) * _PER_SECOND_MS, unfinished * _PER_PART_MS)
    return {_HEADER: str(round(min(max(wait_ms, _LEAST_MS), _MOST_MS)))}
