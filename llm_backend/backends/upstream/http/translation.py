"""The one place where the HTTP client's errors become ours; its name stays in the log."""

import logging
from types import TracebackType

import aiohttp
from yarl import URL

from llm_backend.errors import ApiError, UpstreamFailed, UpstreamTimeout

__all__ = ["ErrorTranslation", "redirected", "shut_out"]

log = logging.getLogger(__name__)

_SEE_OTHER = 303


class ErrorTranslation:
    """Errors of one upstream, which the log names with its address.

    What the HTTP client raises within is raised as `UpstreamFailed` or `UpstreamTimeout`; where it
    is what a body has raised on its way up, that is raised, which is not the upstream's doing.
    It holds nothing of what goes on, so that one serves all requests at once: a `with` costs
    little, and there are some in each of them.
    """

    def __init__(self, name: str, authority: str) -> None:
        self._name = name
        self._authority = authority

    def __enter__(self) -> None:
        """The HTTP client is about to be asked."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._raise(error)

    def _raise(self, error: BaseException) -> None:
        """Raises what this error is here; nothing where it is the same here."""
        if isinstance(error, TimeoutError):
            raise self.late(error) from error
        if isinstance(error, aiohttp.ClientError | OSError):
            if isinstance(error.__cause__, ApiError):
                raise error.__cause__ from None
            raise self._failed(error) from error
        if isinstance(error, UpstreamFailed):
            self.tell(error)

    def _failed(self, error: Exception) -> UpstreamFailed:
        self._log("upstream_failed", error)
        reached = not isinstance(error, aiohttp.ClientConnectorError)
        said = "broke off or gave no valid answer" if reached else "could not be reached"
        failed = UpstreamFailed(f"The upstream {said}.")
        failed.was_sent = reached
        return failed

    def tell(self, error: UpstreamFailed) -> None:
        """What came is no answer."""
        self._log("upstream_failed", error)

    def late(self, error: TimeoutError) -> UpstreamTimeout:
        """The error for a deadline that is over."""
        self._log("upstream_timeout", error)
        late = UpstreamTimeout("The upstream did not answer in time.")
        late.was_sent = not isinstance(error, aiohttp.ConnectionTimeoutError)
        return late

    def _log(self, event: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"[:300]  # may hold bytes that the upstream sent
        told = {"upstream": self._name, "address": self._authority, "reason": repr(reason)}
        log.error(event, extra=told)


def shut_out(status: int) -> UpstreamFailed:
    """The error for an upstream that refuses this server: whose key is wrong is not told to the
    client, who would take it for its own, and nothing that the upstream says of it."""
    refused = UpstreamFailed(
        f"The upstream lets this server do nothing (status {status}); the key that you sent is not "
        "the one that it refuses."
    )
    refused.was_sent, refused.is_lasting = False, True  # it was not acted on
    return refused


def redirected(answer: aiohttp.ClientResponse) -> UpstreamFailed:
    """The error for an upstream that answers from somewhere else; the log has the place, without
    its query, which may hold what only the upstream's clients may know."""
    failed = _Redirected(
        f"The upstream answered with a redirect (status {answer.status}), and this server follows "
        "none: the backend's base URL must be the address that answers."
    )
    failed.place = _place(answer)
    failed.was_sent = answer.status == _SEE_OTHER  # which says that it was acted on
    failed.is_lasting = True
    return failed


class _Redirected(UpstreamFailed):
    """A redirect, and where it leads."""

    place = ""

    def __str__(self) -> str:
        return f"redirect to {self.place}, {self.message}"


def _place(answer: aiohttp.ClientResponse) -> str:
    try:
        there = answer.url.join(URL(answer.headers.get("location", "")))
        return str(there.with_query(None).with_user(None).with_fragment(None))
    except ValueError:
        return "a place that is no URL"
