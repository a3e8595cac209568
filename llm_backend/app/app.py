"""The application, opened and closed by whoever serves it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.app.startup_errors import CannotStart, start_translated
from llm_backend.app.wiring import open_services
from llm_backend.settings import Settings, SettingsError, SettingsSource, load_settings
from llm_backend.telemetry import configure_logging

__all__ = ["App", "create_app"]


def create_app() -> "App":
    """For ASGI servers of your own: `uvicorn --factory llm_backend.app:create_app`."""
    settings = load_settings()
    if settings.processes > 1:
        raise SettingsError("`processes` is for `llm-backend serve`; unset it for other servers.")
    return App(settings)


class App:
    """The ASGI application. Answers while it is open: by `opened`, or by a server's lifespan.

    `shared` is the folder where another process has opened engines, for one of several processes.
    The config file of `source` is watched. `cut_off` is set once the process that owns the engines
    has given this one up, which can only be ended then.
    """

    def __init__(
        self,
        settings: Settings,
        shared: Path | None = None,
        source: SettingsSource | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._shared = shared
        self._answer: ASGIApp | None = None
        self._leaving = asyncio.Event()
        self._stopping = asyncio.Event()
        self.cut_off = asyncio.Event()

    def leave(self) -> None:
        """The server is going to stop, and is not ready any more; it answers as before."""
        self._leaving.set()

    def stop(self) -> None:
        """The server begins to stop: what would go on without an end is ended."""
        self.leave()
        self._stopping.set()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Opens database, engines and upstream, and closes them at the end.

        Raises `CannotStart`, one sentence for the person who must act.
        """
        settings, shared = self._settings, self._shared
        configure_logging(
            settings.log_level, settings.log_format, tells_process=settings.processes > 1
        )
        async with AsyncExitStack() as stack:
            with start_translated():
                opening = open_services(
                    settings,
                    shared,
                    self._source,
                    leaving=self._leaving,
                    stopping=self._stopping,
                    cut_off=self.cut_off,
                )
                self._answer = await stack.enter_async_context(opening)
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._answer is not None, "the application has not been opened"
        await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()  # lifespan.startup
            try:
                await stack.enter_async_context(self.opened())
            except CannotStart as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})
