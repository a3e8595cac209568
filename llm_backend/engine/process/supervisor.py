"""Supervisor of a worker process: starts it, watches it, and restarts it with growing delays."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from llm_backend.engine.config import EngineConfig
from llm_backend.engine.messages import ENDED_ITSELF_STATUS, LoadModel, NotReady, Shutdown
from llm_backend.engine.process.engine_connection import EngineConnection
from llm_backend.engine.process.exit_status import (
    describe_exit,
    has_crashed,
    oom_kills,
    was_killed_from_outside,
)
from llm_backend.engine.process.lifecycle import RESTARTING, EngineLifecycle, EngineState
from llm_backend.engine.process.restart_policy import RestartPolicy
from llm_backend.engine.process.socket_path import close_socket, open_socket
from llm_backend.engine.process.watchdog import wait_until_hung
from llm_backend.engine.process.worker_log import log_lines

_log = logging.getLogger(__name__)

# loops before a waiting thread sleeps: longer than waits within a pass or between two passes, far
# shorter than a time slice
_SPIN_COUNT = "10000"
_LAST_LINES_S = 1.0  # to read the log of an ended process, which a grandchild may hold open


@dataclass(frozen=True, kw_only=True)
class _WorkerExit:
    """End of a worker. `would_repeat`: another worker would soon end in the same way.
    `must_be_killed`: it does not end by itself. `lacks_memory`: its plan takes too much memory.
    `ended_itself`: it did so to stop native code. `ready_s`: seconds for which it was ready."""

    reason: str
    ready_s: float = 0
    was_ready: bool = False
    has_crashed: bool = False
    would_repeat: bool = False
    must_be_killed: bool = False
    lacks_memory: bool = False
    ended_itself: bool = False


class Supervisor(EngineLifecycle):
    """Keeps one worker running between `start` and `close`."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self._safer_variants = _safer_variants(config)
        self._deaths = 0
        self._listening_socket: socket.socket | None = None

    def start(self) -> None:
        """Begins to start a worker, without waiting. Raises `OSError` if the socket of other
        processes cannot be opened."""
        if self._task is None:
            self._open_socket()
            self._reason = "The engine is loading its model."
            self._task = asyncio.create_task(self._keep_alive(), name="engine-supervisor")
            self._task.add_done_callback(self._handle_task_end)

    async def close(self) -> None:
        """Shut the worker down, and kill it if it does not end in time."""
        self._set_state(EngineState.CLOSED, "The engine is closed.")
        self._close_socket()
        if self._connection is not None:
            self._connection.send(Shutdown())
        if self._task is None:
            return
        if self._connection is not None:
            await asyncio.wait([self._task], timeout=self._config.stop_timeout_s)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _keep_alive(self) -> None:
        policy = RestartPolicy(self._config)
        while True:
            worker_exit = await self._run_worker()
            if self.state is EngineState.CLOSED:
                return
            if worker_exit.ended_itself:
                _log.info("engine_restarted", extra={"reason": "a request was cancelled"})
                continue
            if self._shrink_plan(worker_exit) or self._use_safer_variant(worker_exit):
                continue
            self._deaths += 1
            restart = policy.next_restart(
                ready_s=worker_exit.ready_s,
                was_ready=worker_exit.was_ready,
                cannot_start=worker_exit.would_repeat and self.info is None,
            )
            self._delay_s = restart.delay_s
            if restart.is_pause:
                self._fail(worker_exit.reason)
            facts = {"reason": worker_exit.reason, "next_start_s": restart.delay_s}
            _log.error("engine_failed" if restart.is_pause else "engine_died", extra=facts)
            await asyncio.sleep(restart.delay_s)

    def _fail(self, reason: str) -> None:
        """Refuses requests, also of other processes, until the next start has succeeded."""
        self._next_start_at = time.monotonic() + self._delay_s
        self._set_state(EngineState.FAILED, reason)
        self._close_socket()

    def _open_socket(self) -> None:
        if self._listening_socket is None and self._config.socket_path is not None:
            self._listening_socket = open_socket(self._config.socket_path)

    def _close_socket(self) -> None:
        if self._listening_socket is not None:
            close_socket(self._listening_socket)
            self._listening_socket = None

    def _shrink_plan(self, exit_: _WorkerExit) -> bool:
        """Changes to the smaller memory plan if the start failed for lack of memory; returns
        whether it did."""
        smaller = self._config.smaller_fit
        if smaller is None or exit_.was_ready or not exit_.lacks_memory:
            return False
        facts = {"reason": exit_.reason, "plan": self._config.plan, "smaller": smaller.plan}
        _log.warning("engine_plan_shrunk", extra=facts)
        self._config = self._config.with_fit(smaller)
        return True

    def _use_safer_variant(self, exit_: _WorkerExit) -> bool:
        """Changes to the next variant with fewer native accelerations if the worker crashed before
        it was ready; returns whether it did. Code that repacks weights, for example, crashes at its
        first product on some processors."""
        if exit_.was_ready or not exit_.has_crashed or not self._safer_variants:
            return False
        code = self._safer_variants.pop(0)
        _log.warning("engine_variant_changed", extra={"reason": exit_.reason, **code})
        self._config = replace(self._config, **code)
        return True

    def _log_fields(self) -> Mapping[str, object]:
        """Fields of the worker's log lines, which name it."""
        return {"engine_process": self.pid, "file": self._config.model_path.name}

    async def _run_worker(self) -> _WorkerExit:
        """Runs one worker from its start to its end."""
        started_at, oom_kills_before = time.monotonic(), oom_kills()
        try:
            self._open_socket()
            process, connection = await self._spawn()
        except OSError as error:  # no memory or no process slot is free at the moment
            return _WorkerExit(reason=f"The engine process cannot be started: {error}.")
        self.pid = process.pid
        assert process.stderr is not None, "it is a pipe"
        log_task = asyncio.create_task(log_lines(process.stderr, self._log_fields()))
        worker_exit = _WorkerExit(reason="The engine was stopped.", must_be_killed=True)
        try:
            connection.send(self._start_command())
            worker_exit = await self._serve(connection, started_at)
        finally:
            self._connection = None
            is_closing = self.state is EngineState.CLOSED
            candidates = connection.crash_candidates()
            if not is_closing and worker_exit.was_ready:
                self._set_state(EngineState.RESTARTING, RESTARTING)
            connection.fail_calls(self._down_error())
            grace_s = 0 if worker_exit.must_be_killed else self._config.stop_timeout_s
            try:
                exit_ = await _end(process, grace_s)
                await asyncio.wait([log_task], timeout=_LAST_LINES_S)
            finally:
                log_task.cancel()
                self.pid = None
        if worker_exit.was_ready and not is_closing:
            if exit_.is_uncaused(oom_kills_before):
                self.poison_requests.discard_crash(process.pid)
            else:
                self.poison_requests.record_crash(candidates, process.pid)
        if worker_exit.would_repeat:
            return worker_exit
        reason = f"The engine process {describe_exit(exit_.status)}"
        if worker_exit.was_ready:
            reason = f"{reason}. {worker_exit.reason}".rstrip()
        else:
            reason += f" {worker_exit.reason}"
        return _WorkerExit(
            reason=reason,
            ready_s=worker_exit.ready_s,
            was_ready=worker_exit.was_ready,
            has_crashed=has_crashed(exit_.status),
            lacks_memory=self._lacked_memory(exit_, oom_kills_before),
            ended_itself=worker_exit.was_ready and exit_.status == ENDED_ITSELF_STATUS,
        )

    def _lacked_memory(self, exit_: "_ProcessExit", oom_kills_before: int) -> bool:
        """True if a worker ended for lack of memory: the kernel killed it, or it aborted with a
        GPU. Native code aborts if it cannot allocate GPU memory in a pass."""
        is_killed = exit_.status == -signal.SIGKILL and not exit_.was_killed_here
        has_aborted = exit_.status == -signal.SIGABRT and self._config.gpu_layers != 0
        return has_aborted or (is_killed and oom_kills() != oom_kills_before)

    async def _serve(self, connection: EngineConnection, started_at: float) -> _WorkerExit:
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                first = await connection.first()
        except TimeoutError:
            limit_s = self._config.start_timeout_s
            reason = f"The model was not ready within {limit_s:g} s."
            return _WorkerExit(reason=reason, would_repeat=True, must_be_killed=True)
        if isinstance(first, NotReady):
            return _WorkerExit(
                reason=first.message, would_repeat=True, lacks_memory=first.lacks_memory
            )
        if first is None:
            return _WorkerExit(reason="before the model had computed its first pass.")
        ready_at = time.monotonic()
        self._start_s = ready_at - started_at
        self.info = first.info
        facts = {"file": self._config.model_path.name, "backend": first.info.backend}
        _log.info("engine_ready", extra={**facts, "plan": first.info.plan})
        if self.state is not EngineState.CLOSED:
            self._serve_by(connection)
        has_ended = await self._wait_until_closed(connection)
        ready_s = time.monotonic() - ready_at
        if has_ended:
            return _WorkerExit(reason="", was_ready=True, ready_s=ready_s)
        timeout_s = self._config.hang_timeout_s
        reason = f"It had not answered for {timeout_s:g} s."
        return _WorkerExit(reason=reason, was_ready=True, ready_s=ready_s, must_be_killed=True)

    async def _wait_until_closed(self, connection: EngineConnection) -> bool:
        """Waits until the worker has ended; False if it hangs."""
        running = asyncio.create_task(connection.wait_closed())
        watching = asyncio.create_task(
            wait_until_hung(connection, self._config.hang_timeout_s, self._should_probe)
        )
        try:
            await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
            return running.done()
        finally:
            for task in (running, watching):
                task.cancel()
            await asyncio.gather(running, watching, return_exceptions=True)

    def _should_probe(self, connection: EngineConnection) -> bool:
        # with a listening socket, other processes may have pending requests
        return connection.is_busy or self._listening_socket is not None

    async def _spawn(self) -> tuple[asyncio.subprocess.Process, EngineConnection]:
        ours, theirs = socket.socketpair()
        inherited = [theirs, *([self._listening_socket] if self._listening_socket else [])]
        worker = "llm_backend.engine.process.worker"
        command = self._config.command or (sys.executable, "-m", worker)
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.enter_context(ours)
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                pass_fds=[sock.fileno() for sock in inherited],
            )
            on_failure.pop_all()
        return process, await EngineConnection.from_socket(ours)

    def _start_command(self) -> LoadModel:
        listening_fd = self._listening_socket.fileno() if self._listening_socket else None
        return self._config.start_command(deaths=self._deaths, listening_fd=listening_fd)


def _environment() -> dict[str, str]:
    """Environment of the worker: this process's, and a bound of the spin count of its threads.
    Without a bound, threads that wait for the others would hold cores for longer than the pass
    takes, while other processes need them. A value set by the operator stays."""
    inherited = dict(os.environ)  # noqa: TID251 # passed on; OpenMP's own variables stay
    if inherited.get("OMP_WAIT_POLICY") or inherited.get("GOMP_SPINCOUNT"):
        return inherited
    return {**inherited, "GOMP_SPINCOUNT": _SPIN_COUNT}


@dataclass(frozen=True, kw_only=True)
class _ProcessExit:
    """A worker's exit status, and whether its owner had to kill it."""

    status: int
    was_killed_here: bool

    def is_uncaused(self, oom_kills_before: int) -> bool:
        """True if no command is to blame for the end: the process was killed from outside, or ended
        itself to stop native code."""
        if self.status == ENDED_ITSELF_STATUS:
            return True
        return not self.was_killed_here and was_killed_from_outside(self.status, oom_kills_before)


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> _ProcessExit:
    """Waits until a process has ended; kills it after `grace_s`, or if the wait is cancelled."""
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
    return _ProcessExit(status=status, was_killed_here=was_killed_here)


def _safer_variants(config: EngineConfig) -> list[dict[str, bool]]:
    """Variants of the settings with fewer optional native accelerations, in the order in which they
    are tried after crashes at the start."""
    choices = [
        {"use_extra_buffers": extra, "prefill_kernels": kernels}
        for kernels in (True, False)
        for extra in (True, False)
        if (config.use_extra_buffers or not extra) and (config.prefill_kernels or not kernels)
    ]
    # Last, because it changes nothing for a model without a head.
    without_heads = {**choices[0], "draft_heads": False}
    return [*choices[1:], without_heads] if config.draft_heads else choices[1:]
