"""The ASGI application: opens its services, answers requests, and closes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.types import Receive, Scope, Send

from llm_backend.app.startup_errors import CannotStart, translate_startup_errors
from llm_backend.app.wiring import OpenServices, open_services
from llm_backend.logs import configure_logging
from llm_backend.settings import Settings, SettingsError, SettingsSource, load_settings


def create_app() -> "App":
    """Creates the application for other ASGI servers:
    `uvicorn --factory llm_backend.app:create_app`."""
    settings = load_settings()
    if settings.processes > 1:
        raise SettingsError("`processes` is for `llm-backend serve`; unset it for other servers.")
    return App(settings)


class App:
    """The ASGI application. It answers requests while it is open, either within `async with open()`
    or within an ASGI lifespan.

    With several processes, another one owns the engines, serves them in the folder `shared`, and
    watches the config file, whose path `config_file` is for hints only. With one process, this
    application watches the config file of `source`. `cut_off` is set when the owner of the engines
    has disconnected this process, which must then exit.
    """

    def __init__(
        self,
        settings: Settings,
        shared: Path | None = None,
        source: SettingsSource | None = None,
        config_file: Path | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._config_file = config_file if source is None else source.file
        self._shared = shared
        self._opened: OpenServices | None = None
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()
        self.cut_off = asyncio.Event()

    @property
    def requires_key(self) -> bool:
        """True if requests need a key; for an open application."""
        return not self._services.keyring.is_open_to_all

    @property
    def _services(self) -> OpenServices:
        assert self._opened is not None, "the application has not been opened"
        return self._opened

    def drain(self) -> None:
        """Marks the server as not ready before it stops; requests are answered as before."""
        self._draining.set()

    def stop(self) -> None:
        """Begins to stop: drains, and ends streams that would not end by themselves."""
        self.drain()
        self._stopping.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Opens database, engines and upstreams, and closes them at the end.

        Raises `CannotStart`, with one sentence for the operator.
        """
        settings, shared = self._settings, self._shared
        configure_logging(
            settings.log_level, settings.log_format, shows_process=settings.processes > 1
        )
        async with AsyncExitStack() as stack:
            with translate_startup_errors():
                opening = open_services(
                    settings,
                    shared,
                    self._source,
                    self._config_file,
                    draining=self._draining,
                    stopping=self._stopping,
                    cut_off=self.cut_off,
                )
                self._opened = await stack.enter_async_context(opening)
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
            return
        await self._services.app(scope, receive, send)

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()  # lifespan.startup
            try:
                await stack.enter_async_context(self.open())
            except CannotStart as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()  # lifespan.shutdown
        await send({"type": "lifespan.shutdown.complete"})
