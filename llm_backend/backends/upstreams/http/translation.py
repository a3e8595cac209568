"""The one place where the HTTP client's errors become ours; its name stays in the log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from llm_backend.errors import ApiError, UpstreamFailed, UpstreamTimeout

__all__ = ["Translation", "shut_out"]

log = logging.getLogger(__name__)


class Translation:
    """Errors of one upstream, which the log names with its address."""

    def __init__(self, name: str, authority: str) -> None:
        self._name = name
        self._authority = authority

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What the HTTP client raises is raised as `UpstreamFailed` or `UpstreamTimeout`; where it
        is what a body has raised on its way up, that is raised, which is not the upstream's doing.
        """
        try:
            yield
        except TimeoutError as error:
            raise self.late(error) from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error.__cause__, ApiError):
                raise error.__cause__ from None
            self._log("upstream_failed", error)
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            said = "broke off or gave no valid answer" if reached else "could not be reached"
            failed = UpstreamFailed(f"The upstream {said}.")
            failed.was_sent = reached
            raise failed from error
        except UpstreamFailed as error:
            self.tell(error)
            raise

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
