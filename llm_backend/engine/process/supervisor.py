"""Supervisor of a worker process: starts it, watches it, and restarts it with growing delays."""

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass

from llm_backend.engine.config import EngineConfig
from llm_backend.engine.messages import NotReady, Shutdown, Start
from llm_backend.engine.process.engine_connection import EngineConnection
from llm_backend.engine.process.exit_status import describe_exit, oom_kills, was_killed_from_outside
from llm_backend.engine.process.lifecycle import EngineLifecycle, EngineState
from llm_backend.engine.process.restart_policy import Restarts
from llm_backend.engine.process.socket_path import close_socket, open_socket
from llm_backend.engine.process.watchdog import hung
from llm_backend.engine.process.worker_log import log_lines

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

_SPINS = "10000"  # more than threads wait in a pass and between two, far less than a time slice
_LAST_LINES_S = 1.0  # for the log of a process that has ended; a grandchild may hold it open


@dataclass(frozen=True, kw_only=True)
class _Death:
    """End of a worker. `is_final`: another worker would soon end in the same way.
    `must_be_killed`: it has not ended by itself."""

    reason: str
    lived_s: float = 0
    was_ready: bool = False
    by_signal: bool = False
    is_final: bool = False
    must_be_killed: bool = False


class Supervisor(EngineLifecycle):
    """Keeps one worker running between `start` and `close`."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._extra_buffers = config.use_extra_buffers
        self._door: socket.socket | None = None

    def start(self) -> None:
        """Begin to start a worker, without waiting. Raises `OSError` if the socket of other
        processes cannot be opened."""
        if self._task is None:
            self._open_door()
            self._reason = "The engine is loading its model."
            self._task = asyncio.create_task(self._keep_alive(), name="engine-supervisor")
            self._task.add_done_callback(self._task_ended)

    async def close(self) -> None:
        """Shut the worker down, and kill it if it does not end in time."""
        self._become(EngineState.CLOSED, "The engine is closed.")
        self._close_door()
        if self._link is not None:
            self._link.send(Shutdown())
        if self._task is None:
            return
        if self._link is not None:
            await asyncio.wait([self._task], timeout=self._config.stop_timeout_s)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_alive(self) -> None:
        restarts = Restarts(self._config)
        while True:
            death = await self._live()
            if self.state is EngineState.CLOSED:
                return
            if self._can_do_without_extra_buffers(death):
                continue
            restart = restarts.after(
                lived_s=death.lived_s,
                was_ready=death.was_ready,
                cannot_start=death.is_final and self.info is None,
            )
            self._delay_s = restart.delay_s
            if restart.is_pause:
                self._fail(death.reason)
            facts = {"reason": death.reason, "next_start_s": restart.delay_s}
            _log.error("engine_failed" if restart.is_pause else "engine_died", extra=facts)
            await asyncio.sleep(restart.delay_s)

    def _fail(self, reason: str) -> None:
        """Refuse requests until the next start has succeeded, those of other processes too."""
        self._next_start_at = time.monotonic() + self._delay_s
        self._become(EngineState.FAILED, reason)
        self._close_door()

    def _open_door(self) -> None:
        if self._door is None and self._config.door is not None:
            self._door = open_socket(self._config.door)

    def _close_door(self) -> None:
        if self._door is not None:
            close_socket(self._door)
            self._door = None

    def _can_do_without_extra_buffers(self, death: _Death) -> bool:
        """True if the worker is to be restarted without repacked weights: native code that
        repacks them crashes at its first product on some processors."""
        if death.was_ready or not death.by_signal or not self._extra_buffers:
            return False
        _log.warning("engine_extra_buffers_off", extra={"reason": death.reason})
        self._extra_buffers = False
        return True

    async def _live(self) -> _Death:
        """Run one worker from its start to its end."""
        started_at, oom_kills_before = time.monotonic(), oom_kills()
        try:
            self._open_door()
            process, link = await self._spawn()
        except OSError as error:  # no memory or no room for another process at the moment
            return _Death(reason=f"The engine process cannot be started: {error}.")
        self.pid = process.pid
        assert process.stderr is not None, "it was asked for"
        logging_lines = asyncio.create_task(log_lines(process.stderr))
        death = _Death(reason="The engine was stopped.", must_be_killed=True)
        try:
            link.send(self._start_command())
            death = await self._serve(link, started_at)
        finally:
            self._link = None
            is_ours = self.state is EngineState.CLOSED
            poison_requests = link.poison_requests()
            if not is_ours and death.was_ready:
                self._become(EngineState.RESTARTING, "The engine died and is being restarted.")
            link.lose(self._down())
            grace_s = 0 if death.must_be_killed else self._config.stop_timeout_s
            try:
                ending = await _end(process, grace_s)
                await asyncio.wait([logging_lines], timeout=_LAST_LINES_S)
            finally:
                logging_lines.cancel()
                self.pid = None
        if death.was_ready and not is_ours:
            if ending.is_from_outside(oom_kills_before):
                self.poison_requests.acquit(process.pid)
            else:
                self.poison_requests.blame(poison_requests, process.pid)
        if death.is_final:
            return death
        reason = f"The engine process {describe_exit(ending.status)}"
        if death.was_ready:
            reason = f"{reason}. {death.reason}".rstrip()
        else:
            reason += f" {death.reason}"
        return _Death(
            reason=reason,
            lived_s=time.monotonic() - started_at,
            was_ready=death.was_ready,
            by_signal=ending.status < 0,
        )

    async def _serve(self, link: EngineConnection, started_at: float) -> _Death:
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                first = await link.first()
        except TimeoutError:
            limit_s = self._config.start_timeout_s
            reason = f"The model was not ready within {limit_s:g} s."
            return _Death(reason=reason, is_final=True, must_be_killed=True)
        if isinstance(first, NotReady):
            return _Death(reason=first.message, is_final=True)
        if first is None:
            return _Death(reason="before the model had computed its first pass.")
        self._start_s = time.monotonic() - started_at
        self.info = first.info
        self._link = link
        if self.state is not EngineState.CLOSED:
            self._become(EngineState.READY, "")
        if await self._runs_until_gone(link):
            return _Death(reason="", was_ready=True)
        patience_s = self._config.hang_timeout_s
        reason = f"It had not answered for {patience_s:g} s."
        return _Death(reason=reason, was_ready=True, must_be_killed=True)

    async def _runs_until_gone(self, link: EngineConnection) -> bool:
        """Wait until the worker has ended; False if it hangs."""
        running = asyncio.create_task(link.gone())
        watching = asyncio.create_task(hung(link, self._config.hang_timeout_s, self._has_work))
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            return running.done()
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)

    def _has_work(self, link: EngineConnection) -> bool:
        return link.is_busy or self._door is not None  # other processes may have pending requests

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, EngineConnection]:
        ours, theirs = socket.socketpair()
        inherited = [theirs, *([self._door] if self._door else [])]
        command = self._config.command or (
            sys.executable,
            "-m",
            "llm_backend.engine.process.worker",
        )
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.enter_context(ours)
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                pass_fds=[one.fileno() for one in inherited],
            )
            on_failure.pop_all()
        return process, await EngineConnection.over(ours)

    def _start_command(self) -> Start:
        config = self._config
        draft_tokens = config.draft_tokens if config.speculation else 0
        return Start(
            model_path=str(config.model_path),
            context_tokens=config.context_tokens,
            default_context_tokens=config.default_context_tokens,
            slots=config.slots,
            batch_tokens=config.batch_tokens,
            logit_rows=max(config.logit_rows, draft_tokens),
            draft_tokens=draft_tokens,
            draft_model_path=str(config.draft_model_path) if config.draft_model_path else None,
            adapters=list(config.adapters),
            projector_path=str(config.projector_path) if config.projector_path else None,
            picture_tokens=config.picture_tokens,
            sound_limit_s=config.sound_limit_s,
            threads=config.threads or _cores(),
            are_threads_set=config.threads is not None,
            gpu_layers=-1 if config.gpu_layers is None else config.gpu_layers,
            use_extra_buffers=self._extra_buffers,
            unified_cells=config.unified_cells,
            cells=config.cells,
            cache_type=config.cache_type,
            flash_attention=config.flash_attention,
            mmap=config.mmap,
            mlock=config.mlock,
            kind=config.kind,
            queue_limit=config.queue_limit,
            queue_deadline_s=config.queue_deadline_s,
            batch_queue_limit=config.batch_queue_limit,
            batch_queue_deadline_s=config.batch_queue_deadline_s,
            choices_limit=config.choices_limit,
            stops_limit=config.stops_limit,
            inputs_limit=config.inputs_limit,
            grammars=config.grammars,
            prefixes=config.prefixes,
            outbox_bytes=config.outbox_bytes,
            door=self._door.fileno() if self._door else None,
            guests_limit=config.guests_limit,
            log_level=logging.getLevelNamesMapping()[config.log_level],
        )


def _environment() -> dict[str, str]:
    """Environment of the worker: this process's, and a bound of the spin count of its threads.
    Without a bound, threads that wait for the others would hold cores for longer than the pass
    takes, while other processes need them. A value set by the operator stays."""
    inherited = dict(os.environ)  # noqa: TID251 # handed on, not read for a setting
    if inherited.get("OMP_WAIT_POLICY") or inherited.get("GOMP_SPINCOUNT"):
        return inherited
    return {**inherited, "GOMP_SPINCOUNT": _SPINS}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on every Unix
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """A worker's exit status, and whether its owner had to kill it."""

    status: int
    was_killed_here: bool

    def is_from_outside(self, oom_kills_before: int) -> bool:
        return not self.was_killed_here and was_killed_from_outside(self.status, oom_kills_before)


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> _Ending:
    """Wait until a process has ended; kill it after `grace_s`, or if the wait is cancelled."""
    was_killed_here = False
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await process.wait()
    finally:
        if process.returncode is None:
            was_killed_here = True
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        status = await process.wait()
    return _Ending(status=status, was_killed_here=was_killed_here)
