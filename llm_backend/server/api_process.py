"""One of several API processes: `python -m llm_backend.server.api_process LISTENER CONTROL`.

Both arguments are inherited file descriptors. CONTROL carries the messages of
[process_messages.py](process_messages.py): the parent sends the settings and the shared folder, and
the process reports that it serves, or why it cannot. From then on the process answers pings. It
stops at the command to stop. It drains at the command to drain, and when the parent closes CONTROL.
The parent also owns the engines. If the parent disconnects the process from the engines, the
process exits with an error and the parent starts another.
"""

import asyncio
import contextlib
import logging
import socket
import sys
from pathlib import Path

from llm_backend.app import App, CannotStart
from llm_backend.ipc import MessageConnection
from llm_backend.operating_system import die_with_parent
from llm_backend.server.api_server import ApiServer, auto_loop_factory
from llm_backend.server.process_messages import (
    PROCESS_CHANNEL,
    ParentMessage,
    Ping,
    Pong,
    ProcessReply,
    Serving,
    Start,
    StartFailed,
    Stop,
)
from llm_backend.settings import settings_from_json

log = logging.getLogger(__name__)

_Connection = MessageConnection[ParentMessage, ProcessReply]


def main() -> None:
    """Serves until a command to stop; exits with status 1 if that is not possible."""
    die_with_parent()
    listener, control = (socket.socket(fileno=int(number)) for number in sys.argv[-2:])
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_run(listener, control))


async def _run(listener: socket.socket, control: socket.socket) -> None:
    connection: _Connection = await MessageConnection.open(control, PROCESS_CHANNEL)
    start = await connection.receive()
    if not isinstance(start, Start):  # the parent has exited already
        return
    settings = settings_from_json(start.settings)
    config_file = None if start.config_file is None else Path(start.config_file)
    app = App(settings, shared=Path(start.shared), config_file=config_file)
    await _serve(app, ApiServer(app, settings), listener, connection)


async def _serve(
    app: App, server: ApiServer, listener: socket.socket, connection: _Connection
) -> None:
    watchers = (
        asyncio.create_task(_handle_commands(connection, server)),
        asyncio.create_task(_stop_when_cut_off(app, server)),
    )
    try:
        await server.serve(
            listener, lambda requires_key: connection.send(Serving(requires_key=requires_key))
        )
    except CannotStart as error:
        connection.send(StartFailed(reason=str(error)))
        with contextlib.suppress(OSError):  # the parent may have exited
            await connection.drain()
        raise SystemExit(1) from error
    finally:
        for task in watchers:
            task.cancel()
        connection.close()
    if app.cut_off.is_set():
        raise SystemExit(1)


async def _handle_commands(connection: _Connection, server: ApiServer) -> None:
    while isinstance(command := await connection.receive(), Ping):
        connection.send(Pong())
    if isinstance(command, Stop):
        server.stop()
    else:
        server.drain()


async def _stop_when_cut_off(app: App, server: ApiServer) -> None:
    """Stops when the owner of the engines drops this process; answers that already have an engine
    are finished."""
    await app.cut_off.wait()
    log.error("cut_off_by_engines_owner")
    server.stop()


if __name__ == "__main__":
    main()
