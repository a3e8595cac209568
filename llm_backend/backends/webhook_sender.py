"""Sends events to webhook endpoints: to public hosts by https, and to hosts that a setting names.

The HTTP client is imported on first use.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from llm_backend.backends.public_session import (
    DEFAULT_PORTS,
    is_address,
    is_public_address,
    lookup_threads,
    open_session,
    parse_url,
)

if TYPE_CHECKING:
    from yarl import URL

_HTTPS_PORT = 443


class WebhookUrlRefused(Exception):
    """This server sends no events to the URL of an endpoint; the message says why."""


class WebhookNotSent(Exception):
    """An event got no answer; the message says why, without the URL, which may hold a token."""


@dataclass(frozen=True, kw_only=True)
class WebhookAnswer:
    """Answer of an endpoint: its status, and its `Retry-After`, empty if absent."""

    status: int
    retry_after: str = ""

    @property
    def is_accepted(self) -> bool:
        """True if the endpoint has taken the event."""
        return 200 <= self.status < 300

    def pause_s(self, now: float) -> float:
        """Returns the seconds from `now` (Unix seconds) that `Retry-After` asks for; 0 if it is
        neither a number nor a date."""
        if self.retry_after.isascii() and self.retry_after.isdigit():
            return float(self.retry_after)
        try:
            return max(0.0, parsedate_to_datetime(self.retry_after).timestamp() - now)
        except (ValueError, OverflowError):  # no date, or one out of range
            return 0.0


class WebhookSender:
    """Sends events, each within `timeout_s`. Those to `hosts` (`HOST` or `HOST:PORT`) may go to
    internal addresses and without TLS."""

    def __init__(self, hosts: Collection[str], *, timeout_s: float) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._timeout_s = timeout_s
        self._lookups = lookup_threads("webhook-lookups")

    def check(self, url: str) -> None:
        """Raises `WebhookUrlRefused` unless events may be sent to this URL; only `send` resolves
        its host."""
        self._parse_allowed(url)

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookAnswer:
        """Sends an event and returns the answer, whose body is not read. Raises
        `WebhookUrlRefused`, `WebhookNotSent`."""
        import aiohttp

        parsed, is_named = self._parse_allowed(url)
        is_allowed = (lambda _: True) if is_named else is_public_address
        try:
            async with (
                open_session(
                    is_allowed, timeout_s=self._timeout_s, lookups=self._lookups
                ) as session,
                session.post(parsed, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                return WebhookAnswer(
                    status=answer.status, retry_after=answer.headers.get("Retry-After", "")
                )
        except TimeoutError as error:
            message = f"The endpoint did not answer within {self._timeout_s:g} s."
            raise WebhookNotSent(message) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            place = "" if is_named else " at a public address"
            raise WebhookNotSent(f"No connection to the endpoint{place} can be made.") from error

    def _parse_allowed(self, url: str) -> "tuple[URL, bool]":
        """Returns the parsed URL, and whether the setting names its host."""
        parsed = parse_url(url)
        if parsed is None:
            raise WebhookUrlRefused("This is not a URL.")
        if parsed.user or parsed.password or parsed.fragment:
            raise WebhookUrlRefused("The URL must have no user, password or fragment.")
        host, port = str(parsed.host).lower(), int(parsed.port or 0)
        is_named = f"{host}:{port}" in self._hosts or (
            port in DEFAULT_PORTS and host in self._hosts
        )
        if is_named:
            return parsed, True
        named = "unless `webhook_hosts` (LLM_BACKEND_WEBHOOK_HOSTS) names its host"
        if parsed.scheme != "https" or port != _HTTPS_PORT:
            raise WebhookUrlRefused(f"The URL must be https, at port {_HTTPS_PORT}, {named}.")
        if is_address(host) and not is_public_address(host):
            raise WebhookUrlRefused(f"The URL must not be a private address, {named}.")
        return parsed, False
