"""Several API processes behind one listening socket, with engines that all of them share.

The parent process serves no requests: it owns the engines, and starts, restarts and ends the API
processes. So a process that crashes while parsing a request takes only its own requests with it.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llm_backend.app import CannotStart, open_shared_engines
from llm_backend.backoff import backoff_delay_s
from llm_backend.controllers.services.detached_peers import peer_socket
from llm_backend.logs import configure_logging
from llm_backend.metrics import forget_process
from llm_backend.server.api_child import ApiChild
from llm_backend.server.api_server import CANCEL_TIMEOUT_S, SAME_SIGNAL_S
from llm_backend.server.private_folder import private_folder
from llm_backend.settings import Settings, SettingsSource

log = logging.getLogger(__name__)

RESTART_DELAY_S = 0.25  # doubled with each further crash
RESTART_DELAY_LIMIT_S = 30.0
RESTART_RESET_S = 30.0  # run time after which the count of crashes starts anew


async def serve_processes(
    settings: Settings,
    listener: socket.socket,
    on_open: Callable[[bool], None],
    source: SettingsSource | None = None,
) -> None:
    """Serves with `settings.processes` processes until SIGINT or SIGTERM; `on_open` is called when
    all of them answer, with True if requests need a key. Changes in the config file of `source`
    are applied as far as possible. Closes `listener`. Raises `CannotStart` if a process ends before
    any of them serves.
    """
    configure_logging(settings.log_level, settings.log_format, shows_process=True)
    processes = _Processes(settings, listener, None if source is None else source.file)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, processes.stop, number)
    with _open_shared_folder() as shared:
        async with open_shared_engines(settings, shared, source, processes.change_settings):
            await processes.run(shared, on_open)


class _Processes:
    def __init__(
        self, settings: Settings, listener: socket.socket, config_file: Path | None
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._config_file = config_file
        self._count = settings.processes
        self._children: set[ApiChild] = set()
        self._serving: set[ApiChild] = set()
        self._has_served = False  # True once any has: its settings work, so it is restarted
        self._requires_key = False
        self._is_open = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._stopped_at = 0.0  # time of the first signal
        self._is_terminated = False

    async def run(self, shared: Path, on_open: Callable[[bool], None]) -> None:
        """Starts the processes; returns when all have ended."""
        supervisors = [
            asyncio.create_task(self._supervise(shared)) for _ in range(self._settings.processes)
        ]
        try:
            if await self._wait_until_open(supervisors):
                on_open(self._requires_key)
            await _wait_for(self._is_ending, supervisors)
        finally:
            await self._stop_children(supervisors)

    def change_settings(self, settings: Settings) -> None:
        """Replaces the settings, for processes that are started from now on."""
        self._settings = settings

    def stop(self, number: signal.Signals) -> None:
        """Ends all processes gracefully; after a second signal, without a grace period."""
        now = time.monotonic()
        if not self._is_ending.is_set():
            self._stopped_at = now
            self._is_terminated = number is signal.SIGTERM
        elif now - self._stopped_at > SAME_SIGNAL_S:
            for child in self._children:
                child.signal(signal.SIGINT)  # hurries a process that is already ending
        self._is_ending.set()

    async def _wait_until_open(self, supervisors: Sequence[asyncio.Task[None]]) -> bool:
        opening = asyncio.create_task(_wait_for(self._is_open, supervisors))
        ending = asyncio.create_task(self._is_ending.wait())
        try:
            await asyncio.wait({opening, ending}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                opening.result()
            return self._is_open.is_set()
        finally:
            for task in (opening, ending):
                task.cancel()

    async def _supervise(self, shared: Path) -> None:
        crashes = 0
        while not self._is_ending.is_set():
            began_s = time.monotonic()
            reason = await self._run_child(shared)
            if self._is_ending.is_set():
                return
            if not self._has_served:
                raise CannotStart(reason)
            ran_s = time.monotonic() - began_s
            crashes = crashes + 1 if ran_s < RESTART_RESET_S else 1
            delay_s = backoff_delay_s(RESTART_DELAY_S, crashes, RESTART_DELAY_LIMIT_S)
            log.error("api_process_ended", extra={"reason": reason, "restart_in_s": delay_s})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), delay_s)

    async def _run_child(self, shared: Path) -> str:
        """Runs one process from its start to its end, and returns the reason of the end."""
        try:
            child = await ApiChild.start(self._settings, self._listener, shared, self._config_file)
        except OSError as error:
            return f"An API process cannot be started: {error}."
        self._children.add(child)
        if self._is_ending.is_set():
            self._end_child(child)
        try:
            reason = await child.wait_until_serving()
            if reason is None:
                self._mark_serving(child)
                reason = f"The API process {child.pid} {await self._wait_for_end(child)}."
            await child.wait_for_exit()
            return reason
        finally:
            self._children.discard(child)
            self._serving.discard(child)
            forget_process(shared, child.pid)
            peer_socket(shared, child.pid).unlink(missing_ok=True)

    async def _wait_for_end(self, child: ApiChild) -> str:
        """Waits for the end of a process and describes it. A process that hangs is killed: it
        would never answer its requests, and would keep engines from being unloaded."""
        timeout_s = self._settings.process_hang_timeout_s
        ending = asyncio.create_task(child.wait_for_exit())
        hanging = asyncio.create_task(child.wait_for_hang(timeout_s))
        try:
            await asyncio.wait({ending, hanging}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():
                log.error("api_process_hung", extra={"api_process": child.pid, "s": timeout_s})
                child.signal(signal.SIGKILL)
            return await ending
        finally:
            for task in (ending, hanging):
                task.cancel()

    def _mark_serving(self, child: ApiChild) -> None:
        log.info("api_process_serves", extra={"api_process": child.pid})
        self._serving.add(child)
        self._has_served = True
        self._requires_key = child.requires_key
        if len(self._serving) == self._count:
            self._is_open.set()

    async def _stop_children(self, supervisors: Sequence[asyncio.Task[None]]) -> None:
        self._is_ending.set()
        self._listener.close()
        for child in self._children:
            self._end_child(child)
        settings = self._settings
        timeout_s = settings.shutdown_delay_s + settings.shutdown_grace_s + 2 * CANCEL_TIMEOUT_S
        await asyncio.wait(supervisors, timeout=timeout_s)
        for child in self._children:
            log.error("api_process_killed", extra={"api_process": child.pid})
            child.signal(signal.SIGKILL)
        # The first error is being raised already.
        await asyncio.gather(*supervisors, return_exceptions=True)

    def _end_child(self, child: ApiChild) -> None:
        if self._is_terminated:
            child.drain()
        else:
            child.stop()


async def _wait_for(event: asyncio.Event, supervisors: Sequence[asyncio.Task[None]]) -> None:
    """Waits for an event; raises the error of a supervisor task that ends before."""
    waiting = asyncio.create_task(event.wait())
    try:
        done, _ = await asyncio.wait({waiting, *supervisors}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        waiting.cancel()


@contextlib.contextmanager
def _open_shared_folder() -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder())
        except OSError as error:
            raise CannotStart(
                f"Several processes need a folder for their sockets: {error}; set TMPDIR to one."
            ) from error
        yield folder
