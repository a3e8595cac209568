"""Health of the writes to a database, as readiness and metrics report it."""

import logging
from collections.abc import Callable

from sqlalchemy import Connection

from llm_backend.store.database.metadata import counters
from llm_backend.store.database.upsert import add_up
from llm_backend.store.errors import StoreLocked, StoreUnavailable

log = logging.getLogger(__name__)

_PROBES = "write_probes"


class WriteHealth:
    """Health of the writes. They count as failing from the first write that the database could not
    store until a probe, a write that changes a row, succeeds. On a full disk, writes that change
    nothing still succeed, and prove nothing. `failure` is the last error; None if writes
    succeed."""

    def __init__(self, on_failed: Callable[[], None]) -> None:
        self.failure: StoreUnavailable | None = None
        self._on_failed = on_failed

    def record_failure(self, error: StoreUnavailable) -> None:
        """Records a failed write. A lock of another transaction is not a failure of the
        database."""
        if isinstance(error, StoreLocked):
            return
        self._on_failed()
        if self.failure is None:
            log.error("database_not_written", extra={"reason": str(error)})
        self.failure = error

    def record_success(self) -> None:
        """Records a successful write that changed something."""
        if self.failure is not None:
            log.info("database_written_again")
        self.failure = None


def probe(connection: Connection) -> None:
    """A unit of work that changes an otherwise unused counter."""
    add_up(connection, counters, [{"name": _PROBES, "value": 1}])
