"""HTTP sessions that refuse names of internal addresses, unless the caller allows them (SSRF
protection). Callers check addresses that are written as numbers.

A name is resolved once, and the connection goes to the checked addresses: no second DNS answer can
lead into the internal network (DNS rebinding). Sessions ignore proxies of the environment and keep
no cookies; callers send `allow_redirects=False`. The HTTP client is imported on first use.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from aiohttp.abc import AbstractResolver
    from yarl import URL

_WEB = re.compile(r"https?://", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_URL_CHARACTERS = 4096  # far more than the URL of a file has
_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291: all public addresses of hosts
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses embedded in IPv6
_LOOKUPS = 8  # DNS lookups at a time
DEFAULT_PORTS = (80, 443)


def is_web_url(url: str) -> bool:
    """Returns True for an http or https URL."""
    return _WEB.match(url) is not None


def parse_url(url: str) -> "URL | None":
    """Parses an http or https URL with a host; None if it is invalid. A host that is an IPv4
    address must have four decimal numbers: not all programs read `127.1` as an address."""
    from yarl import URL  # the HTTP client's parser: another one might find another host

    try:
        parsed = URL(url) if is_web_url(url) and len(url) <= _URL_CHARACTERS else None
    except ValueError:
        return None
    if parsed is None or not parsed.host or parsed.port is None:
        return None
    last_label = parsed.host.rstrip(".").rpartition(".")[2]
    return None if _NUMBER.fullmatch(last_label) and not is_address(parsed.host) else parsed


def is_public_address(address: str) -> bool:
    """Returns True for an address of the public internet."""
    read = ipaddress.ip_address(address)
    if isinstance(read, ipaddress.IPv4Address):
        return read.is_global and not read.is_multicast
    inner = _embedded_ipv4(read)
    if inner is not None and not inner.is_global:
        return False
    return read in _NAT64 or (read in _UNICAST and read.is_global)


def is_address(host: str) -> bool:
    """Returns True for an IP address, False for a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def open_session(
    is_allowed: Callable[[str], bool], *, timeout_s: float, lookups: Executor
) -> "AsyncIterator[ClientSession]":
    """Opens a session for one request. The request raises `OSError` if its host is a name with an
    address that is not allowed; callers check literal addresses. `lookups` runs DNS lookups."""
    import aiohttp

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=_resolver(is_allowed, lookups)),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session


def _embedded_ipv4(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Returns the IPv4 address to which a gateway may translate an IPv6 address."""
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    return address.sixtofour


def lookup_threads(prefix: str) -> ThreadPoolExecutor:
    """Creates a thread pool for DNS lookups. A foreign name server may answer slowly, and must not
    block the event loop's default executor."""
    return ThreadPoolExecutor(_LOOKUPS, thread_name_prefix=prefix)


def _resolver(is_allowed: Callable[[str], bool], lookups: Executor) -> "AbstractResolver":
    """Creates a DNS resolver that rejects names with an address that is not allowed."""
    from aiohttp.abc import AbstractResolver

    class Allowed(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> Any:  # aiohttp's type, which is imported on first use
            look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = await asyncio.get_running_loop().run_in_executor(lookups, look_up)
            if not all(is_allowed(str(address[0])) for *_, address in found):
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

    return Allowed()
