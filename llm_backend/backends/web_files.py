"""Files that are elsewhere: fetched from hosts that are allowed, and never from the inside.

A host is allowed by its name, and its name must lead to public addresses only: who controls a name
does not get at what this machine alone can reach. Redirects are not followed. The client is
imported when it is used.
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

__all__ = ["FetchMessages", "WebFile", "WebFiles", "is_elsewhere"]

_ELSEWHERE = re.compile(r"https?://", re.IGNORECASE)
_URL_CHARACTERS = 4096  # far more than the URL of a file has
_USUAL_PORTS = (80, 443)
_PIECE = 1 << 16
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the older addresses, as the newer ones


@dataclass(frozen=True, kw_only=True)
class FetchMessages:
    """How refusals speak of what is fetched: its `noun`, what a client may do `instead`, the
    `setting` that allows hosts, the codes of what is no URL to fetch and of what is too large."""

    noun: str
    instead: str
    setting: str
    url_code: str | None = None
    size_code: str | None = None


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """A file that was fetched: named by the end of its URL's path, of the type its host says."""

    name: str
    media_type: str
    content: bytes


def is_elsewhere(url: str) -> bool:
    """Whether this is a URL of the web's."""
    return _ELSEWHERE.match(url) is not None


def _is_public(address: str) -> bool:
    read = ipaddress.ip_address(address)
    inner = _inner(read)
    return read.is_global and not read.is_multicast and (inner is None or inner.is_global)


def _inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The older address that a gateway on the way makes of this one, if any does."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.sixtofour


class WebFiles:
    """Fetches files of up to `limit_bytes` from `hosts` (`HOST` or `HOST:PORT`), each within
    `timeout_s`. `is_public` tells whether an address may be connected to."""

    def __init__(
        self,
        hosts: Collection[str] = (),
        *,
        words: FetchMessages,
        limit_bytes: int,
        timeout_s: float,
        is_public: Callable[[str], bool] = _is_public,
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._words = words
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._is_public = is_public

    async def fetched(self, url: str, where: str) -> WebFile:
        """The file at this URL. Raises `InvalidRequest` that names `where` the URL stands."""
        parsed = _parse_url(url)
        if parsed is None or not parsed.host or parsed.port is None:
            raise self._refused(where, "This is no URL.")
        self._check(parsed.host.lower(), parsed.port, where)
        return await self._get(parsed, where)

    def _check(self, host: str, port: int, where: str) -> None:
        words = self._words
        is_allowed = port in _USUAL_PORTS and host in self._hosts
        if not is_allowed and f"{host}:{port}" not in self._hosts:
            raise self._refused(
                where,
                f"This server does not fetch {words.noun}s from there: {words.instead}, or have "
                f"the host allowed by `{words.setting}` (LLM_BACKEND_{words.setting.upper()}).",
            )
        if _is_address(host) and not self._is_public(host):
            noun = words.noun.capitalize()
            raise self._refused(where, f"{noun}s are not fetched from private addresses.")

    async def _get(self, url: "URL", where: str) -> WebFile:
        import aiohttp

        noun = self._words.noun
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
                    raise self._refused(where, f"The {noun}'s host answers with {answer.status}.")
                data = bytearray()
                async for piece in answer.content.iter_chunked(_PIECE):
                    data += piece
                    if len(data) > self._limit_bytes:
                        raise InvalidRequest(
                            f"The {noun} has more than {self._limit_bytes:,} bytes.",
                            param=where,
                            code=self._words.size_code,
                        )
                return WebFile(name=url.name, media_type=answer.content_type, content=bytes(data))
        except TimeoutError as error:
            sentence = f"The {noun} did not come within {self._timeout_s:g} s."
            raise self._refused(where, sentence) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._refused(where, f"The {noun} cannot be fetched from there.") from error

    def _refused(self, where: str, sentence: str) -> InvalidRequest:
        return InvalidRequest(sentence, param=where, code=self._words.url_code)

    def _resolver(self) -> "AbstractResolver":
        """Names to addresses, but for names that lead inside."""
        from aiohttp.abc import AbstractResolver

        is_public = self._is_public

        class Public(AbstractResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> Any:  # the client's own type, which is imported when used
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
                """Nothing is open."""

        return Public()


def _parse_url(url: str) -> "URL | None":
    from yarl import URL  # the client's own reader of URLs: another one might read another host

    try:
        return URL(url) if is_elsewhere(url) and len(url) <= _URL_CHARACTERS else None
    except ValueError:
        return None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
