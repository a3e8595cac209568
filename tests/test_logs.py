"""Log lines, where several processes write them."""

import json
import logging
import os

import pytest

from llm_backend.logs import JsonFormatter, TextFormatter, configure_logging
from tests.logged import logging_as_it_was

RECORD = logging.makeLogRecord({"msg": "answered", "levelname": "INFO", "status": 200})


@pytest.mark.parametrize("shows_process", [True, False])
def test_log_line_has_the_process_id_only_with_several_processes(shows_process):
    event = json.loads(JsonFormatter(shows_process).format(RECORD))
    line = TextFormatter(shows_process).format(RECORD)

    assert event.get("process") == (os.getpid() if shows_process else None)
    assert (f"[{os.getpid()}] answered status=200" in line) is shows_process


def test_configure_logging_does_not_leak_into_other_tests():
    chatty, handlers = logging.getLogger("alembic"), list(logging.root.handlers)
    before = logging.root.level, chatty.level
    with logging_as_it_was():
        configure_logging("error", "text")
        within = logging.root.level, chatty.level

    assert within == (logging.ERROR, logging.ERROR)
    assert (logging.root.level, chatty.level) == before
    assert set(logging.root.handlers) <= set(handlers)


def test_log_line_escapes_control_characters():
    record = {
        "msg": "refused",
        "levelname": "INFO",
        "path": "/é\n12:00:00 info\x1b[2J",
        "status": 1,
    }
    line = TextFormatter(False).format(logging.makeLogRecord(record))

    assert line.endswith(r"refused path=/é\n12:00:00 info\x1b[2J status=1")
