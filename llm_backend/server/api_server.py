"""The application behind uvicorn, in this process."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable

from llm_backend.app import App
from llm_backend.contract.placeholders import held_back
from llm_backend.server.tls import server_context
from llm_backend.settings import Settings

with held_back("watchfiles"):  # for its reloading; it does without
    import uvicorn
    from uvicorn.loops.auto import auto_loop_factory

    from llm_backend.server.http_protocol import HttpProtocol

__all__ = ["ENDING_S", "ApiServer", "auto_loop_factory"]

ENDING_S = 5.0  # for what was still running when the grace period was over


class ApiServer:
    """Answers what comes to a listening socket until `stop`, SIGINT or SIGTERM."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        context = server_context(settings)
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            lifespan="off",  # `_serve` opens and closes the application around the server
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,  # ours are dated by the envelope, relayed ones by their upstream
            ws_max_size=settings.body_limit_bytes,
            timeout_graceful_shutdown=settings.shutdown_grace_s,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
        self._server = _Server(config, app.stop)

    def stop(self) -> None:
        """Take no more connections; running answers get their grace period."""
        self._server.should_exit = True

    async def serve(self, listener: socket.socket, on_open: Callable[[], None]) -> None:
        """Returns when it has been stopped and everything is closed. Raises `CannotStart`."""
        # The server takes these signals while it runs and raises them again when it has stopped:
        # then there is still something to close.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        async with self._app.opened():
            gc.freeze()  # what stands now stays: the collector need not look through it again
            on_open()
            await self._server.serve(sockets=[listener])
            await self._ended()

    async def _ended(self) -> None:
        """Waits until what was still running when the grace period was over has ended."""
        tasks = set(self._server.server_state.tasks)
        if self._server.force_exit:  # otherwise they have been cancelled
            for task in tasks:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=ENDING_S)


class _Server(uvicorn.Server):
    """Says that it begins to stop, before it waits for what is still being answered."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, after those who never come to an end by themselves have been told."""
        self._on_stop()
        await super().shutdown(sockets)
