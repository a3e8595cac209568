"""Child processes of single requests: start, output that is read while they compute, and end."""

import asyncio
import contextlib
import os
import select
import signal
import sys
from asyncio.subprocess import PIPE, Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import IO

EXTERNAL_SIGNALS = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""Exit codes of children that a person, another program or the kernel has ended, whatever their
input."""

_CHUNK_BYTES = 64 * 1024


def run_reader(
    module: str,
    *arguments: object,
    file: IO[bytes],
    stderr: int = PIPE,
    environment: Mapping[str, str] | None = None,
) -> AbstractAsyncContextManager[Process]:
    """Starts a module with `file`, from its beginning, as standard input. The child gets the
    variables of `environment` and `PYTHONPATH`, so none of the server's secrets."""
    file.flush()
    # `file.seek` makes no system call if its buffer covers the position
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return run_child(
        *(sys.executable, "-m", module, *map(str, arguments)),
        environment={"PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})},
        stdin=file,
        stderr=stderr,
    )


@asynccontextmanager
async def run_child(
    *command: str,
    environment: Mapping[str, str],
    stdin: int | IO[bytes] = PIPE,
    stderr: int = PIPE,
) -> AsyncIterator[Process]:
    """Starts a program without a shell, with this environment only. It is killed at the end, with
    its own children."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.subprocess_exec(
        lambda: SubprocessStreamProtocol(limit=_CHUNK_BYTES, loop=loop),
        *command,
        stdin=stdin,
        stderr=stderr,
        env=environment,
        start_new_session=True,  # a wrapper script is ended with its children
    )
    process = Process(transport, protocol, loop)
    try:
        yield process
    finally:
        if process.returncode is None or _is_open_elsewhere(transport):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await _close(transport, process)


def _is_open_elsewhere(transport: asyncio.SubprocessTransport) -> bool:
    """True if a process, such as a child of the one that has ended, still has the other end of a
    pipe."""
    pipes = [transport.get_pipe_transport(number) for number in (1, 2)]
    files = [one.get_extra_info("pipe") for one in pipes if one and not one.is_closing()]
    poll = select.poll()
    for file in files:
        poll.register(file, 0)  # without events, only a closed other end is reported
    return len(poll.poll(0)) < len(files)


async def _close(transport: asyncio.SubprocessTransport, process: Process) -> None:
    """Closes the pipes, also those that another process holds, and waits for the process."""
    try:
        for number in (0, 1, 2):
            pipe = transport.get_pipe_transport(number)
            if isinstance(pipe, asyncio.WriteTransport) and pipe.get_write_buffer_size():
                pipe.abort()  # `close` would wait until the rest is read
            elif pipe is not None:
                pipe.close()
        await process.wait()
    finally:
        transport.close()
