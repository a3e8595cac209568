"""Runs the application in uvicorn, in this process."""

import asyncio
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from types import FrameType

from llm_backend.app import App
from llm_backend.operating_system import c_function
from llm_backend.server.tls import server_context
from llm_backend.settings import Settings
from llm_backend.unused_imports import block_imports

# The parts of uvicorn that reload it, run several processes and configure logging, and its command,
# are not needed.
with block_imports(
    click=("Choice", "Context", "Parameter", "Path", "argument", "command", "echo", "option"),
    configparser=("RawConfigParser",),
    logging__config=(),
    uvicorn__supervisors=("ChangeReload", "Multiprocess"),
):
    import uvicorn

    # Other modules import it from here, because its unneeded parts are only blocked here.
    from uvicorn.loops.auto import auto_loop_factory as auto_loop_factory

    from llm_backend.server.http_protocol import HttpProtocol
    from llm_backend.server.request_pace import PaceLimits
    from llm_backend.server.socket_protocol import FrameLimits, SocketProtocol

log = logging.getLogger(__name__)

# Seconds between checks of the connections for slow clients.
CHECK_INTERVAL_S = 1.0
CANCEL_TIMEOUT_S = 5.0  # for requests that still run after the grace period
# Larger allocations are mapped one by one, and unmapped when freed.
MMAP_THRESHOLD_BYTES = 256 * 1024
# A SIGTERM this soon after the end has begun is no second signal: `timeout` signals a process and
# its group, in which the parent tells its processes to end, too.
SAME_SIGNAL_S = 0.5
# Objects between garbage collections: reference counts free nearly all objects of a request.
GC_THRESHOLD = 5000


class ApiServer:
    """Answers requests on a listening socket.

    Ends at `stop` or SIGINT, or at the configured delay after `drain` or SIGTERM.
    """

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        context = server_context(settings)
        config = uvicorn.Config(
            app,
            http=_http_protocol(settings),  # type: ignore[arg-type] # called as a class is
            ws=_socket_protocol(settings),  # type: ignore[arg-type] # called as a class is
            lifespan="off",  # `_serve` opens and closes the application around the server
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # nothing depends on the address of the client
            server_header=False,
            # `Envelope` (`contract/application/`) adds the `Date` of every answer.
            date_header=False,
            ws_max_size=settings.body_limit_bytes,
            timeout_keep_alive=settings.keep_alive_timeout_s,
            timeout_graceful_shutdown=settings.shutdown_grace_s,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
        self._server = _Server(config, app, settings.shutdown_delay_s, settings.header_timeout_s)

    def drain(self) -> None:
        """Marks the server as not ready, and stops after `shutdown_delay_s`, in which load
        balancers notice."""
        self._server.drain()

    def stop(self) -> None:
        """Accepts no more connections; running answers get their grace period."""
        self._server.should_exit = True

    async def serve(self, listener: socket.socket, on_open: Callable[[bool], None]) -> None:
        """Serves until stopped, and closes everything. `on_open` is called when it answers, with
        True if requests need a key. Raises `CannotStart`."""
        # uvicorn handles these signals while it runs and raises them again when it has stopped.
        # They must not end the process then, because the application still has to be closed.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop())
        _configure_malloc()
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()  # imported modules stay: the collector can skip them
        async with self._app.open():
            gc.freeze()  # as do the opened services
            on_open(self._app.requires_key)
            await self._server.serve(sockets=[listener])
            await self._wait_for_requests()

    async def _wait_for_requests(self) -> None:
        """Waits for requests that still run after the grace period."""
        tasks = set(self._server.server_state.tasks)
        if self._server.force_exit:  # otherwise they have been cancelled
            for task in tasks:
                task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT_S)


def _http_protocol(settings: Settings) -> Callable[..., asyncio.Protocol]:
    limits = PaceLimits(
        head_s=settings.header_timeout_s,
        body_bytes_per_s=settings.body_min_bytes_per_s,
        body_grace_s=settings.body_grace_s,
    )
    return partial(HttpProtocol, pace=limits, write_timeout_s=settings.write_timeout_s)


def _socket_protocol(settings: Settings) -> Callable[..., asyncio.Protocol]:
    limits = FrameLimits(
        fragments=settings.socket_fragments_limit,
        control_frames=settings.socket_control_frames_per_s,
    )
    return partial(SocketProtocol, limits=limits)


class _Server(uvicorn.Server):
    """uvicorn's server, which also notifies the application of `drain` and `stop`, and checks its
    connections periodically.

    A second signal of either kind stops without a grace period.
    """

    def __init__(
        self, config: uvicorn.Config, app: App, delay_s: float, handshake_timeout_s: float
    ) -> None:
        super().__init__(config)
        self._app = app
        self._delay_s = delay_s
        self._handshake_timeout_s = handshake_timeout_s
        self._stops_at: float | None = None
        self._ending_since: float | None = None
        self._checked_at = time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Overrides uvicorn's: listens on the given sockets, with a timeout of the TLS
        handshake."""
        self.servers = [await self._listen(one) for one in sockets or ()]
        self.started = True

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        config = self.config
        is_wrapped = config.ssl is not None
        return await asyncio.get_running_loop().create_server(
            lambda: config.http_protocol_class(  # type: ignore[call-arg] # uvicorn's own
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            ),
            sock=listener,
            ssl=config.ssl,
            backlog=config.backlog,
            ssl_handshake_timeout=self._handshake_timeout_s if is_wrapped else None,
            ssl_shutdown_timeout=self._handshake_timeout_s if is_wrapped else None,
        )

    def drain(self) -> None:
        """Schedules the stop, at the configured delay after the first call."""
        self._app.drain()
        self._note_end()
        if self._stops_at is None:
            self._stops_at = time.monotonic() + self._delay_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Overrides uvicorn's: SIGTERM drains first, unless it is the second signal."""
        first_s = self._ending_since
        self._note_end()
        if first_s is None:
            if sig == signal.SIGTERM:
                self.drain()
            else:
                super().handle_exit(sig, frame)
        elif sig != signal.SIGTERM or time.monotonic() - first_s > SAME_SIGNAL_S:
            self.should_exit = True
            super().handle_exit(signal.SIGINT, frame)  # which then ends running requests

    def _note_end(self) -> None:
        if self._ending_since is None:
            self._ending_since = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Overrides uvicorn's, which calls it several times a second. Returns True if it is time to
        stop."""
        if self._stops_at is not None and time.monotonic() >= self._stops_at:
            self.should_exit = True
        self._check_connections()
        return await super().on_tick(counter)

    def _check_connections(self) -> None:
        now_s = time.monotonic()
        if (waited_s := now_s - self._checked_at) < CHECK_INTERVAL_S:
            return
        self._checked_at = now_s
        loop_s = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpProtocol):
                # A longer interval means that this process was busy, not that the client was slow.
                connection.check_timeouts(loop_s, min(waited_s, 2 * CHECK_INTERVAL_S))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Overrides uvicorn's: ends endless streams first."""
        if running := len(self.server_state.tasks):
            grace_s = self.config.timeout_graceful_shutdown
            log.info("finishing_requests", extra={"requests": running, "grace_s": grace_s})
        self._app.stop()
        await super().shutdown(sockets)


def _configure_malloc() -> None:
    """Makes glibc map large allocations one by one. By default its threshold grows to the largest
    freed allocation, and fragmented memory is kept: hundreds of megabytes after some bodies of
    30 MB."""
    mallopt = c_function("mallopt")
    if mallopt is not None:  # only glibc has it
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, MMAP_THRESHOLD_BYTES)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
