"""Refusals of upstreams as errors for clients."""

import logging

from llm_backend.backends.upstream.headers import UpstreamAnswer
from llm_backend.backends.upstream.upstream_errors import ERROR_BYTES, error_fields
from llm_backend.errors import ApiError, UpstreamFailed, from_status

log = logging.getLogger(__name__)

_WAIT_DIGITS = 7  # digits of `retry-after` in seconds: more, beyond some weeks, are invalid


async def read_refusal(relayed: UpstreamAnswer) -> ApiError:
    """Returns the error of an upstream's refusal, for the client."""
    body = await relayed.read(ERROR_BYTES)
    fields = {"upstream": relayed.upstream, "status": relayed.status}
    log.warning("upstream_refused", extra=fields)
    if not 400 <= relayed.status < 500:
        return UpstreamFailed("No upstream could answer the request.")
    refused = error_fields(body)
    message, code = refused.get("message"), refused.get("code")
    error = from_status(
        relayed.status, message if isinstance(message, str) else "The upstream refused the request."
    )
    if isinstance(code, str) and code:
        error.code = code  # without `param`, which names a field of the other operation
    error.retry_after_s = retry_after_s(relayed)
    return error


def retry_after_s(relayed: UpstreamAnswer) -> float | None:
    """Returns the seconds of the upstream's `Retry-After`; None if absent or invalid."""
    wait = relayed.header(b"retry-after") or b""
    return int(wait) if wait.isdigit() and len(wait) < _WAIT_DIGITS else None
