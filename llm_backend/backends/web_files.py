"""Fetches files from allowed hosts on the web (SSRF protection).

A host is allowed by name. The name must resolve to public addresses only, or to others that the
caller accepts: the owner of a name must not reach this machine's internal network. Redirects are
not followed. The HTTP client is imported on first use.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_backend.backends.public_session import (
    DEFAULT_PORTS,
    is_address,
    is_public_address,
    is_web_url,
    lookup_threads,
    open_session,
    parse_url,
)
from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:
    from yarl import URL

__all__ = ["FetchMessages", "WebFile", "WebFiles", "is_web_url"]

_PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class FetchMessages:
    """Words and codes of error messages: the `noun` for the file, what to do `instead`, the
    `setting` that allows hosts, and the codes for an invalid URL and for too large a file."""

    noun: str
    instead: str
    setting: str
    url_code: str | None = None
    size_code: str | None = None


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """Fetched file: its name from the URL's path, its media type from the host's answer."""

    name: str
    media_type: str
    content: bytes


class WebFiles:
    """Fetches files of up to `limit_bytes` from `hosts` (`HOST` or `HOST:PORT`), each within
    `timeout_s`. `is_allowed` returns True for an address to which connections are allowed."""

    def __init__(
        self,
        hosts: Collection[str] = (),
        *,
        messages: FetchMessages,
        limit_bytes: int,
        timeout_s: float,
        is_allowed: Callable[[str], bool] = is_public_address,
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._messages = messages
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._lookups = lookup_threads("file-lookups")
        self._is_allowed = is_allowed

    async def fetch(self, url: str, where: str) -> WebFile:
        """Fetches the file at this URL. Raises `InvalidRequest` with the param `where`."""
        parsed = parse_url(url)
        if parsed is None:
            raise self._error(where, "This is not a URL.")
        self._check(str(parsed.host).lower(), int(parsed.port or 0), where)
        return await self._get(parsed, where)

    def _check(self, host: str, port: int, where: str) -> None:
        words = self._messages
        is_allowed = port in DEFAULT_PORTS and host in self._hosts
        if not is_allowed and f"{host}:{port}" not in self._hosts:
            raise self._error(
                where,
                f"This server does not fetch {words.noun}s from there: {words.instead}, or allow "
                f"the host with `{words.setting}` (LLM_BACKEND_{words.setting.upper()}).",
            )
        if is_address(host) and not self._is_allowed(host):
            noun = words.noun.capitalize()
            raise self._error(where, f"{noun}s are not fetched from private addresses.")

    async def _get(self, url: "URL", where: str) -> WebFile:
        import aiohttp

        noun = self._messages.noun
        try:
            async with (
                open_session(
                    self._is_allowed, timeout_s=self._timeout_s, lookups=self._lookups
                ) as session,
                session.get(url, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise self._error(where, f"The {noun}'s host answers with {answer.status}.")
                data = bytearray()
                async for piece in answer.content.iter_chunked(_PIECE):
                    data += piece
                    if len(data) > self._limit_bytes:
                        raise InvalidRequest(
                            f"The {noun} has more than {self._limit_bytes:,} bytes.",
                            param=where,
                            code=self._messages.size_code,
                        )
                return WebFile(name=url.name, media_type=answer.content_type, content=bytes(data))
        except TimeoutError as error:
            sentence = f"The {noun} did not arrive within {self._timeout_s:g} s."
            raise self._error(where, sentence) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(where, f"The {noun} cannot be fetched from there.") from error

    def _error(self, where: str, sentence: str) -> InvalidRequest:
        return InvalidRequest(sentence, param=where, code=self._messages.url_code)
