"""What the server tells of itself: log lines that are events, and metrics."""

import json
import logging
import sys
import time
from typing import Any, Literal

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

__all__ = ["Metrics", "configure_logging"]

# what every record has anyway; the rest was given as `extra`
_STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure_logging(level: str, form: Literal["text", "json"]) -> None:
    """Log lines to standard error, in one of two forms."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("connexion", "asyncio", "alembic"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


class Metrics:
    """The server's metrics, in a registry of its own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "llm_backend_requests",
            "Answered requests.",
            ["operation", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "llm_backend_request_seconds",
            "From a request's arrival to the end of its answer.",
            ["operation"],
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "llm_backend_requests_in_flight", "Requests being answered.", registry=self._registry
        )

    def render(self) -> bytes:
        """The text format of Prometheus."""
        return generate_latest(self._registry)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        line = f"{stamp} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)
