"""Answer of an upstream, while its body arrives."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from llm_backend.errors import UpstreamFailed


@dataclass(frozen=True, kw_only=True)
class UpstreamAnswer:
    """Answer of an upstream; the caller must call `aclose`, also after an error.

    `headers` are those for the client, with names in lower case, in the order that was sent. `body`
    yields bytes as they arrive, without decoding, and raises `UpstreamFailed` or `UpstreamTimeout`
    if the answer breaks off. A reader that finds it invalid calls `report_invalid`, which logs
    it and counts it as a failure of the upstream. `is_complete`: all bytes have arrived.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: AsyncGenerator[bytes, None]
    close: Callable[[], None]
    upstream: str = ""  # its name, for the log
    is_complete: bool = False
    report_invalid: Callable[[UpstreamFailed], None] = lambda _: None

    def header(self, name: bytes) -> bytes | None:
        """Returns the first value of a header, named in lower case."""
        return next((value for key, value in self.headers if key == name), None)

    async def read(self, limit_bytes: int) -> bytes:
        """Reads the body until it has more than `limit_bytes`, and closes the answer."""
        body = bytearray()
        try:
            async for piece in self.body:
                body += piece
                if len(body) > limit_bytes:
                    break
        finally:
            await self.aclose()
        return bytes(body)

    async def aclose(self) -> None:
        """Returns the connection to the pool, or aborts it if the body was not read to its end."""
        self.close()
        await self.body.aclose()  # else the garbage collector closes it, at any time
