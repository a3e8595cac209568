"""Log lines, where several processes write them."""

import json
import logging
import os

import pytest

from llm_backend.telemetry import _JsonLines, _TextLines

RECORD = logging.makeLogRecord({"msg": "answered", "levelname": "INFO", "status": 200})


@pytest.mark.parametrize(("tells_process", "told"), [(True, os.getpid()), (False, None)])
def test_a_line_tells_its_process_only_where_there_are_several(tells_process, told):
    event = json.loads(_JsonLines(tells_process).format(RECORD))
    line = _TextLines(tells_process).format(RECORD)

    assert event.get("process") == told
    assert (f"[{os.getpid()}] answered status=200" in line) is tells_process
