"""Translation of the HTTP client's errors to API errors; details are only logged."""

import logging
from types import TracebackType

import aiohttp
from yarl import URL

from llm_backend.errors import ApiError, UpstreamFailed, UpstreamTimeout

log = logging.getLogger(__name__)

_SEE_OTHER = 303


class ErrorTranslation:
    """Translates and logs errors of one upstream, with its name and address.

    The HTTP client's errors within the block are raised as `UpstreamFailed` or `UpstreamTimeout`.
    An `ApiError` that the request's body raises is not the upstream's fault, and is raised
    unchanged. One stateless instance serves all concurrent requests.
    """

    def __init__(self, name: str, authority: str) -> None:
        self._name = name
        self._authority = authority

    def __enter__(self) -> None:
        """Does nothing: the block begins."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._raise(error)

    def _raise(self, error: BaseException) -> None:
        """Raises the translation of an error, if it has one."""
        if isinstance(error, TimeoutError):
            raise self.timeout_error(error) from error
        if isinstance(error, aiohttp.ClientError | OSError):
            if isinstance(error.__cause__, ApiError):
                raise error.__cause__ from None
            raise self._failure(error) from error
        if isinstance(error, UpstreamFailed):
            self.log_invalid(error)

    def _failure(self, error: Exception) -> UpstreamFailed:
        self._log("upstream_failed", error)
        reached = not isinstance(error, aiohttp.ClientConnectorError)
        problem = "broke off or gave no valid answer" if reached else "could not be reached"
        failed = UpstreamFailed(f"The upstream {problem}.")
        failed.may_be_processed = reached
        return failed

    def log_invalid(self, error: UpstreamFailed) -> None:
        """Logs an invalid answer."""
        self._log("upstream_failed", error)

    def timeout_error(self, error: TimeoutError) -> UpstreamTimeout:
        """Logs a timeout and returns its API error."""
        self._log("upstream_timeout", error)
        late = UpstreamTimeout("The upstream did not answer in time.")
        late.may_be_processed = not isinstance(error, aiohttp.ConnectionTimeoutError)
        return late

    def _log(self, event: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:300]  # may contain bytes from the upstream
        fields = {"upstream": self._name, "address": self._authority, "reason": repr(reason)}
        log.error(event, extra=fields)


def rejected_key_error(status: int) -> UpstreamFailed:
    """Returns the error for a 401 or 403 by which an upstream rejects this server's key. Its body
    is not passed on: the client would think that its own key is wrong."""
    refused = UpstreamFailed(
        f"The upstream rejects the key of this server (status {status}), not the key that you sent."
    )
    refused.may_be_processed, refused.is_permanent = False, True  # the upstream did nothing
    return refused


def redirect_error(url: URL, status: int, location: str) -> UpstreamFailed:
    """Returns the error for a redirect from `url` to `location`. The log shows the location without
    its query, which may contain secrets."""
    failed = _Redirected(
        f"The upstream answered with a redirect (status {status}), and this server does not "
        "follow redirects: the backend's base URL must be the address that answers."
    )
    failed.location = _location(url, location)
    failed.may_be_processed = status == _SEE_OTHER  # 303 says that the request was processed
    failed.is_permanent = True
    return failed


class _Redirected(UpstreamFailed):
    """Error for a redirect, with its location."""

    location = ""

    def __str__(self) -> str:
        return f"redirect to {self.location}, {self.message}"


def _location(url: URL, location: str) -> str:
    try:
        there = url.join(URL(location))
        return str(there.with_query(None).with_user(None).with_fragment(None))
    except ValueError:
        return "a place that is not a URL"
