"""One of several API processes: `python -m llm_backend.server.api_process LISTENER CONTROL`.

Both arguments are inherited file descriptors. On CONTROL the parent sends one line with the
settings and the shared folder. The process replies with one line: when it serves, `true` if
requests need a key, else `false`; or the reason of its failure as a text.
From then on it answers pings of the parent. It stops on the command to stop,
and drains when the parent closes CONTROL. The parent also owns the engines. If it drops the process
from them, the process exits as if it had died, and the parent starts another.
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from functools import partial
from pathlib import Path

from llm_backend.app import App, CannotStart
from llm_backend.operating_system import die_with_parent
from llm_backend.server.api_child import PING, PONG, STOP
from llm_backend.server.api_server import ApiServer, auto_loop_factory
from llm_backend.settings import settings_from_json

log = logging.getLogger(__name__)


def main() -> None:
    """Serves until a command to stop; exits with status 1 if that is not possible."""
    die_with_parent()
    listener, control = (socket.socket(fileno=int(number)) for number in sys.argv[-2:])
    with control.makefile("rb") as file:
        line = file.readline()
    if not line:  # the parent has exited already
        return
    message = json.loads(line)
    settings = settings_from_json(message["settings"])
    app = App(settings, shared=Path(message["shared"]))
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_serve(app, ApiServer(app, settings), listener, control))


async def _serve(
    app: App, server: ApiServer, listener: socket.socket, control: socket.socket
) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=control)
    watchers = (
        asyncio.create_task(_handle_commands(reader, writer, server)),
        asyncio.create_task(_stop_when_cut_off(app, server)),
    )
    try:
        await server.serve(listener, partial(_send_status, writer))
    except CannotStart as error:
        _send_status(writer, str(error))
        with contextlib.suppress(OSError):  # the parent may have exited
            await writer.drain()
        raise SystemExit(1) from error
    finally:
        for task in watchers:
            task.cancel()
        writer.close()
    if app.cut_off.is_set():
        raise SystemExit(1)


def _send_status(writer: asyncio.StreamWriter, status: str | bool) -> None:
    if not writer.is_closing():  # closed: the parent has exited
        writer.write(json.dumps(status).encode() + b"\n")


async def _handle_commands(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: ApiServer
) -> None:
    while (command := await reader.readline()) == PING:
        if not writer.is_closing():
            writer.write(PONG)
    if command == STOP:
        server.stop()
    else:
        server.drain()


async def _stop_when_cut_off(app: App, server: ApiServer) -> None:
    """Stops when the owner of the engines drops this process; answers with an engine finish."""
    await app.cut_off.wait()
    log.error("cut_off_by_engines_owner")
    server.stop()


if __name__ == "__main__":
    main()
