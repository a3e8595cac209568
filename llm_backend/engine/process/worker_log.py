"""Forwards the standard error of a worker to this process's log, so that every line has the
configured format. Native code that aborts the process reports its reason there, too."""

import asyncio
import logging
import re
from collections.abc import Mapping

FORMAT = "%(levelname)s %(name)s: %(message)s"
_LINE = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) ([\w.]+): (.*)")
_PART_BYTES = 4096  # a line without end is logged in parts

_log = logging.getLogger(__name__)


async def log_lines(stream: asyncio.StreamReader, facts: Mapping[str, object]) -> None:
    """Logs line by line until the worker has ended, each with the `facts` that name the worker."""
    while line := await _next_line(stream):
        _log_line(line.decode(errors="replace").rstrip(), facts)


def _log_line(line: str, facts: Mapping[str, object]) -> None:
    record = _LINE.fullmatch(line)
    if record is not None:
        level, name, message = record.groups()
        number = logging.getLevelNamesMapping()[level]
        logging.getLogger(name).log(number, "%s", message, extra=facts)
    elif line:
        _log.warning("%s", line, extra=facts)


async def _next_line(stream: asyncio.StreamReader) -> bytes:
    """Reads the next line, or as much of it as there is; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as end:
        return end.partial
    except asyncio.LimitOverrunError:
        return await stream.read(_PART_BYTES)
