"""Pictures that are elsewhere: fetched from hosts that are allowed, and never from the inside.

A host is allowed by its name, and its name must lead to public addresses only: who controls a name
does not get at what this machine alone can reach. Redirects are not followed. The client is
imported when it is used.
"""

import asyncio
import base64
import ipaddress
import re
import socket
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_backend.backends.media.values import Picture
from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver
    from yarl import URL

__all__ = ["WebPictures"]

_ELSEWHERE = re.compile(r"https?://", re.IGNORECASE)
_URL_CHARACTERS = 4096  # far more than the URL of a picture has
_USUAL_PORTS = (80, 443)
_PIECE = 1 << 16


def _is_public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


class WebPictures:
    """Fetches pictures of up to `limit_bytes` from `hosts` (`HOST` or `HOST:PORT`), each within
    `timeout_s`. `is_public` tells whether an address may be connected to."""

    def __init__(
        self,
        hosts: Collection[str] = (),
        *,
        limit_bytes: int,
        timeout_s: float,
        is_public: Callable[[str], bool] = _is_public,
    ) -> None:
        self._hosts = {host.lower() for host in hosts}
        self._limit_bytes = limit_bytes
        self._timeout_s = timeout_s
        self._is_public = is_public

    async def fetched(self, picture: Picture) -> Picture:
        """A picture with a data: URL, if it is elsewhere. Raises `InvalidRequest`."""
        if not _ELSEWHERE.match(picture.url):
            return picture
        from yarl import URL  # the client's own reader of URLs: another one might read another host

        try:
            url = URL(picture.url) if len(picture.url) <= _URL_CHARACTERS else None
        except ValueError:
            url = None
        if url is None or not url.host or url.port is None:
            raise _refused(picture, "This is no URL.")
        self._check(url.host.lower(), url.port, picture)
        data = await self._get(url, picture)
        return replace(picture, url=f"data:;base64,{base64.b64encode(data).decode()}")

    def _check(self, host: str, port: int, picture: Picture) -> None:
        is_allowed = port in _USUAL_PORTS and host in self._hosts
        if not is_allowed and f"{host}:{port}" not in self._hosts:
            raise _refused(
                picture,
                "This server does not fetch pictures from there: send a data: URL, upload the "
                "picture and send its `file_id` to /v1/responses, or have the host allowed by "
                "`image_hosts` (LLM_BACKEND_IMAGE_HOSTS).",
            )
        if _is_address(host) and not self._is_public(host):
            raise _refused(picture, "Pictures are not fetched from private addresses.")

    async def _get(self, url: "URL", picture: Picture) -> bytes:
        import aiohttp

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
                    raise _refused(picture, f"The picture's host answers with {answer.status}.")
                data = bytearray()
                async for piece in answer.content.iter_chunked(_PIECE):
                    data += piece
                    if len(data) > self._limit_bytes:
                        raise InvalidRequest(
                            f"The picture has more than {self._limit_bytes:,} bytes.",
                            param=picture.where,
                            code="image_file_too_large",
                        )
                return bytes(data)
        except TimeoutError as error:
            sentence = f"The picture did not come within {self._timeout_s:g} s."
            raise _refused(picture, sentence) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _refused(picture, "The picture cannot be fetched from there.") from error

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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refused(picture: Picture, sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, param=picture.where, code="invalid_image_url")
