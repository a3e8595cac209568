"""All that was logged, as text: events, their fields and tracebacks."""

import pytest


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """What a log line of any form could hold."""
    return caplog.text + "".join(str(vars(record)) for record in caplog.records)
