"""Log lines: events with fields, as text or JSON."""

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Any, Literal

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the current request, for log lines about it; None outside of requests."""

# Attributes of every log record; all others were given as `extra`.
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def configure_logging(
    level: str, form: Literal["text", "json"], *, shows_process: bool = False
) -> None:
    """Configures logging to standard error, as text or JSON, with the process id if
    `shows_process`."""
    handler = logging.StreamHandler(sys.stderr)
    lines = JsonFormatter if form == "json" else TextFormatter
    handler.setFormatter(lines(shows_process))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for verbose in ("connexion", "asyncio", "alembic", "httpx2", "mcp"):
        logging.getLogger(verbose).setLevel(max(logging.WARNING, logging.getLogger().level))
    # python-multipart warns about each malformed form, which is refused and logged anyway.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class _LineFormatter(logging.Formatter):
    def __init__(self, shows_process: bool) -> None:
        super().__init__()
        self._shows_process = shows_process


class TextFormatter(_LineFormatter):
    """A line of text: time, level, event, and its fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record, on one line unless it has an exception."""
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        extra = "".join(f" {name}={_on_one_line(value)}" for name, value in _extra(record).items())
        process = f"[{record.process}] " if self._shows_process else ""
        line = f"{stamp} {record.levelname.lower():7} {process}{record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _on_one_line(value: object) -> str:
    """Formats a value on one line without control characters: some values come from clients."""
    text = str(value)
    return text if text.isprintable() else _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


class JsonFormatter(_LineFormatter):
    """A JSON object for each line, with the fields of the event."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record on one line."""
        event = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_extra(record),
        }
        if self._shows_process:
            event["process"] = record.process
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)
