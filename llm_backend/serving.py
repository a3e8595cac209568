"""Serves the application from this process, and says in one sentence why it cannot."""

import asyncio
import contextlib
import errno
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from llm_backend.app import App, CannotStart
from llm_backend.http_protocol import HttpProtocol
from llm_backend.settings import Settings

__all__ = ["CannotServe", "serve"]


BACKLOG = 2048
ENDING_S = 5.0


class CannotServe(Exception):
    """The server cannot start; the message is one sentence that says what to do."""


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until a signal ends it; `announce` is told the base address once it answers.

    Raises `CannotServe`.
    """
    app = App(settings)
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        lifespan="off",  # `_serve` opens and closes the application around the server
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # ours are dated by the envelope, relayed ones by their upstream
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    with _listening(settings) as listener:
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            try:
                runner.run(_serve(app, config, listener, lambda: announce(address)))
            except CannotStart as error:
                raise CannotServe(str(error)) from error


async def _serve(
    app: App, config: uvicorn.Config, listener: socket.socket, on_open: Callable[[], None]
) -> None:
    # The server takes these signals while it runs and raises them again when it has stopped: then
    # there is still something to close.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    async with app.opened():
        on_open()
        server = uvicorn.Server(config)
        await server.serve(sockets=[listener])
        await _ended(server)


async def _ended(server: uvicorn.Server) -> None:
    """Waits until what was still running when the grace period was over has ended."""
    tasks = set(server.server_state.tasks)
    if server.force_exit:  # otherwise they have been cancelled
        for task in tasks:
            task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=ENDING_S)


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    if not settings.is_loopback and not settings.api_keys and not settings.allow_open:
        raise CannotServe(
            f"Anybody who reaches {settings.host} could use this server, because no key is "
            "configured: set LLM_BACKEND_API_KEYS, or say --allow-open if that is meant."
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # the protocol is named so that every event loop turns Nagle's algorithm off
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise CannotServe(_why(error, settings)) from error
        yield listener


def _why(error: OSError, settings: Settings) -> str:
    address = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use: stop what listens there, or choose another with --port."
    if error.errno == errno.EACCES:
        return f"Listening on {address} is not allowed for this user: choose a --port above 1023."
    return f"Cannot listen on {address}: {error.strerror or error}; check --host."
