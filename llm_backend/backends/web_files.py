"""Fetches files from allowed hosts on the web, never from internal addresses (SSRF protection).

A host is allowed by name, and its name must resolve to public addresses only: the owner of a name
must not reach this machine's internal network. Redirects are not followed. The HTTP client is
imported on first use.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver
    from yarl import URL

_ELSEWHERE = re.compile(r"https?://", re.IGNORECASE)
_URL_CHARACTERS = 4096  # far more than the URL of a file has
_USUAL_PORTS = (80, 443)
_PIECE = 1 << 16
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses embedded in IPv6


@dataclass(frozen=True, kw_only=True)
class FetchMessages:
    """Words for error messages: the `noun` of the file, the alternative `instead`, the `setting`
    that allows hosts, and the error codes of an invalid URL and of too large a file."""

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


def is_web_url(url: str) -> bool:
    """Returns True for an http or https URL."""
    return _ELSEWHERE.match(url) is not None


def _is_public(address: str) -> bool:
    read = ipaddress.ip_address(address)
    inner = _inner(read)
    return read.is_global and not read.is_multicast and (inner is None or inner.is_global)


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Returns the IPv4 address embedded in an IPv6 address, to which a gateway may translate it."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.sixtofour


class WebFiles:
    """Fetches files of up to `limit_bytes` from `hosts` (`HOST` or `HOST:PORT`), each within
    `timeout_s`. `is_public` returns True for an address that may be connected to."""

    def __init__(
        self,
        hosts: Collection[str] = (),
        *,
        messages: FetchMessages,
        limit_bytes: int,
        timeout_s: float,
        is_public: Callable[[str], bool] = _is_public,
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._messages = messages
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._is_public = is_public

    async def fetch(self, url: str, where: str) -> WebFile:
        """Fetches the file at this URL. Raises `InvalidRequest` with the param `where`."""
        parsed = _parse_url(url)
        if parsed is None or not parsed.host or parsed.port is None:
            raise self._error(where, "This is no URL.")
        self._check(parsed.host.lower(), parsed.port, where)
        return await self._get(parsed, where)

    def _check(self, host: str, port: int, where: str) -> None:
        words = self._messages
        is_allowed = port in _USUAL_PORTS and host in self._hosts
        if not is_allowed and f"{host}:{port}" not in self._hosts:
            raise self._error(
                where,
                f"This server does not fetch {words.noun}s from there: {words.instead}, or have "
                f"the host allowed by `{words.setting}` (LLM_BACKEND_{words.setting.upper()}).",
            )
        if _is_address(host) and not self._is_public(host):
            noun = words.noun.capitalize()
            raise self._error(where, f"{noun}s are not fetched from private addresses.")

    async def _get(self, url: "URL", where: str) -> WebFile:
        import aiohttp

        noun = self._messages.noun
        connector = aiohttp.TCPConnector(resolver=self._resolver())
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=timeout,
                    trust_env=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
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
            sentence = f"The {noun} did not come within {self._timeout_s:g} s."
            raise self._error(where, sentence) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(where, f"The {noun} cannot be fetched from there.") from error

    def _error(self, where: str, sentence: str) -> InvalidRequest:
        return InvalidRequest(sentence, param=where, code=self._messages.url_code)

    def _resolver(self) -> "AbstractResolver":
        """Creates a DNS resolver that rejects names with internal addresses."""
        from aiohttp.abc import AbstractResolver

        is_public = self._is_public

        class Public(AbstractResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> Any:  # aiohttp's type, which is imported on first use
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                if not all(is_public(str(address[0])) for *_, address in found):
                    raise OSError(f"{host} is not public")
                return [
                    {
                        "hostname": host,
                        "host": str(address[0]),
                        "port": port,
                        "family": kind,
                        "proto": protocol,
                        "flags": socket.AI_NUMERICHOST,
                    }
                    for kind, _, protocol, _, address in found
                ]

            async def close(self) -> None:
                """Does nothing: no resources are open."""

        return Public()


def _parse_url(url: str) -> "URL | None":
    from yarl import URL  # the HTTP client's parser: another one might find another host

    try:
        return URL(url) if is_web_url(url) and len(url) <= _URL_CHARACTERS else None
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
