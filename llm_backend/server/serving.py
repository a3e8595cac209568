"""Listens and serves, with one process or several. The message of a failure is one sentence for the
operator."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from functools import partial

from llm_backend.app import App, CannotStart
from llm_backend.installation import port_command
from llm_backend.server import private_folder
from llm_backend.server.api_server import ApiServer, auto_loop_factory
from llm_backend.server.processes import serve_processes
from llm_backend.server.tls import server_context
from llm_backend.settings import Settings, SettingsSource

BACKLOG = 2048


class CannotServe(Exception):
    """The server cannot start; the message is one sentence that says what to do."""


def serve(
    settings: Settings, announce: Callable[[str, bool], None], source: SettingsSource | None = None
) -> None:
    """Serves until a signal ends it; `announce` is called with the base address when it answers,
    and with True if requests need a key. Changes in the config file of `source` are applied as far
    as possible.

    Raises `CannotServe`, or `SettingsError` for a certificate that cannot be used.
    """
    scheme = "http" if server_context(settings) is None else "https"
    with listening(settings) as listener:
        host, port = listener.getsockname()[:2]
        address = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            try:
                runner.run(_serve(settings, listener, partial(announce, address), source))
            except CannotStart as error:
                raise CannotServe(str(error)) from error


async def _serve(
    settings: Settings,
    listener: socket.socket,
    on_open: Callable[[bool], None],
    source: SettingsSource | None,
) -> None:
    if settings.processes > 1:
        await serve_processes(settings, listener, on_open, source)
    else:
        # removes the folders that killed servers with several processes left
        await asyncio.to_thread(private_folder.sweep)
        await ApiServer(App(settings, source=source), settings).serve(listener, on_open)


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Yields a socket that listens on the settings' address. Raises `CannotServe`."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is given because some event loops turn off Nagle's algorithm only then.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((settings.host, settings.port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise CannotServe(_listen_error(error, settings)) from error
        yield listener


def _listen_error(error: OSError, settings: Settings) -> str:
    address = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        other = port_command()
        return f"{address} is in use: stop what listens there, or choose another with {other}."
    if error.errno == errno.EACCES:
        return f"Listening on {address} is not allowed for this user: choose a --port above 1023."
    return f"Cannot listen on {address}: {error.strerror or error}; check --host."
