"""All that was logged, as text: events, their fields and tracebacks; and logging as it was."""

import contextlib
import logging
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Restores the logging configuration at the end."""
    loggers = [logging.root, *_loggers()]
    levels = [one.level for one in loggers]
    handlers = list(logging.root.handlers)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for handler in set(logging.root.handlers) - set(handlers):
            if type(handler) is logging.StreamHandler:  # pytest's come and go by themselves
                logging.root.removeHandler(handler)


def _loggers() -> list[logging.Logger]:
    named = logging.root.manager.loggerDict.values()
    return [one for one in named if isinstance(one, logging.Logger)]


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All texts that a log line of any format could contain."""
    return caplog.text + "".join(str(vars(record)) for record in caplog.records)
