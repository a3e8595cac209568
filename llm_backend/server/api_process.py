"""One of several API processes: `python -m llm_backend.server.api_process LISTENER CONTROL`, both
of them inherited file descriptors.

Over CONTROL its parent tells it one line: the settings and the folder that is shared. It answers
with one line: `null` when it serves, or why it cannot. From then on it answers whenever its parent
asks whether it is there. When its parent says so, it stops, and when its parent closes CONTROL, it
leaves. When it is not known any more to who owns the engines, which is its parent as well, it stops
and ends like one that died: another comes in its place.
"""

import asyncio
import contextlib
import json
import logging
import socket
import sys
from pathlib import Path

from llm_backend.app import App, CannotStart
from llm_backend.engine.process.parent_death import die_with_parent
from llm_backend.server.api_child import ASK, HERE, STOP
from llm_backend.server.api_server import ApiServer, auto_loop_factory
from llm_backend.settings import settings_from_json

__all__ = ["main"]

log = logging.getLogger(__name__)


def main() -> None:
    """Serve until told to stop; exit status 1 if that is not possible."""
    die_with_parent()
    listener, control = (socket.socket(fileno=int(number)) for number in sys.argv[-2:])
    with control.makefile("rb") as file:
        line = file.readline()
    if not line:  # the parent has gone already
        return
    told = json.loads(line)
    settings = settings_from_json(told["settings"])
    app = App(settings, shared=Path(told["shared"]))
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(_serve(app, ApiServer(app, settings), listener, control))


async def _serve(
    app: App, server: ApiServer, listener: socket.socket, control: socket.socket
) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=control)
    watching = (
        asyncio.create_task(_obey(reader, writer, server)),
        asyncio.create_task(_stop_when_cut_off(app, server)),
    )
    try:
        await server.serve(listener, lambda: _tell(writer, None))
    except CannotStart as error:
        _tell(writer, str(error))
        with contextlib.suppress(OSError):  # the parent has gone, which may be why
            await writer.drain()
        raise SystemExit(1) from error
    finally:
        for task in watching:
            task.cancel()
        writer.close()
    if app.cut_off.is_set():
        raise SystemExit(1)


def _tell(writer: asyncio.StreamWriter, reason: str | None) -> None:
    if not writer.is_closing():  # the parent has gone
        writer.write(json.dumps(reason).encode() + b"\n")


async def _obey(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: ApiServer
) -> None:
    while (word := await reader.readline()) == ASK:
        if not writer.is_closing():
            writer.write(HERE)
    if word == STOP:
        server.stop()
    else:
        server.leave()


async def _stop_when_cut_off(app: App, server: ApiServer) -> None:
    """Takes nothing more; answers that have their engine already are finished."""
    await app.cut_off.wait()
    log.error("cut_off_by_engines_owner")
    server.stop()


if __name__ == "__main__":
    main()
