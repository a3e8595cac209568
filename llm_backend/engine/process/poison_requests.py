"""Poison requests: commands that may have crashed the worker. A crash adds a weight to a command: 1
if the command was a likely cause, less if others were likelier. A command whose weights sum to
`quarantine_weight` is quarantined: the worker does not get it again."""

import fcntl
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import msgspec

from llm_backend.engine.messages.framing import frame
from llm_backend.engine.process.engine_connection import CrashCandidate, Request

_log = logging.getLogger(__name__)


_UNCAUSED_ENDS_AGE_S = 60.0  # after which the id of a worker with such an end is forgotten
_LOCK_TRIES, _LOCK_PAUSE_S = 50, 0.001  # together far longer than a process needs the lock
_LOCK_RETRY_S = 1.0  # pause after a failed attempt to lock
_LOCKED_REASON = "another process has it locked"


class _CrashRecord(msgspec.Struct, frozen=True, array_like=True):
    crashes: dict[int, float]  # weight of each crash, by worker
    crashed_at: float


class _StoredRecords(msgspec.Struct, frozen=True, array_like=True):
    records: list[tuple[bytes, _CrashRecord]]
    uncaused_ends: dict[int, float]


class PoisonRequests:
    """Counts crashes by a fingerprint of the command, whichever client sends it. The `limit`
    commands that crashed last are remembered, each for `age_s` after its last crash.

    Workers are identified by their process ids. An end is uncaused if no command is to blame: the
    worker was killed from outside, or ended itself to stop native code. The process that owns the
    worker then calls `discard_crash`. Other processes may call `record_crash` for this worker
    before or after that; neither call counts.
    """

    def __init__(
        self,
        *,
        limit: int,
        quarantine_weight: int,
        age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._quarantine_weight = quarantine_weight
        self._age_s = age_s
        self._clock = clock
        self._records: OrderedDict[bytes, _CrashRecord] = OrderedDict()
        self._uncaused_ends: dict[int, float] = {}  # by worker: the time of the report

    def record_crash(self, candidates: Sequence[CrashCandidate], worker: int) -> None:
        """Counts a crash for these commands, which were pending when the worker crashed."""
        self._remove_old()
        if worker in self._uncaused_ends:
            return
        for candidate in candidates:
            key = _fingerprint(candidate.command)
            record = self._records.pop(key, None)
            crashes = dict(record.crashes) if record else {}
            crashes[worker] = max(candidate.weight, crashes.get(worker, 0.0))
            self._records[key] = _CrashRecord(crashes, self._clock())
        while len(self._records) > self._limit:
            self._records.popitem(last=False)

    def discard_crash(self, worker: int) -> None:
        """Removes the crash of a worker whose end was uncaused; ignores later reports of it."""
        self._remove_old()
        self._uncaused_ends[worker] = self._clock()
        self._remove_crash(worker)

    def withdraw_crash(self, worker: int) -> None:
        """Removes the crash of a worker that is alive; only a connection to it had ended."""
        self._remove_crash(worker)

    def _remove_crash(self, worker: int) -> None:
        for key, record in list(self._records.items()):
            crashes = {one: weight for one, weight in record.crashes.items() if one != worker}
            self._records[key] = _CrashRecord(crashes, record.crashed_at)
            if not crashes:
                del self._records[key]

    def clear(self, command: Request) -> None:
        """Removes the crashes of a command that was answered: it is not taken for their cause any
        more."""
        if self._records:
            self._records.pop(_fingerprint(command), None)

    def is_quarantined(self, command: Request) -> bool:
        """True if the weights of the command's crashes sum to at least `quarantine_weight`."""
        return (
            bool(self._records)
            and self._crash_weight(_fingerprint(command)) >= self._quarantine_weight
        )

    def _crash_weight(self, key: bytes) -> float:
        record = self._records.get(key)
        if record is None or self._is_old(record):
            return 0
        return sum(record.crashes.values())

    def _remove_old(self) -> None:
        """Removes records and ids of workers that are too old."""
        for key in [key for key, record in self._records.items() if self._is_old(record)]:
            del self._records[key]
        oldest = self._clock() - _UNCAUSED_ENDS_AGE_S
        self._uncaused_ends = {one: at for one, at in self._uncaused_ends.items() if at >= oldest}

    def _is_old(self, record: _CrashRecord) -> bool:
        return self._clock() - record.crashed_at > self._age_s


class SharedPoisonRequests(PoisonRequests):
    """Crash counts that all processes of one worker share, so that each of them refuses a command
    that has crashed the worker. The counts are in a file, which a process locks while it uses them.
    The file is empty while no worker has crashed. A half-written file counts as empty, too."""

    def __init__(
        self,
        path: Path,
        *,
        limit: int,
        quarantine_weight: int,
        age_s: float,
        clock: Callable[[], float] = time.monotonic,  # of the machine, not of the process
    ) -> None:
        super().__init__(limit=limit, quarantine_weight=quarantine_weight, age_s=age_s, clock=clock)
        self._path = path
        self._next_try_at = 0.0

    def record_crash(self, candidates: Sequence[CrashCandidate], worker: int) -> None:
        """Counts a crash for these commands, which were pending when the worker crashed."""
        if candidates:
            with self._lock():
                super().record_crash(candidates, worker)

    def discard_crash(self, worker: int) -> None:
        """Removes the crash of a worker whose end was uncaused; ignores later reports of it."""
        with self._lock():
            super().discard_crash(worker)

    def withdraw_crash(self, worker: int) -> None:
        """Removes the crash of a worker that is alive; only a connection to it had ended."""
        if self._has_any():
            with self._lock():
                super().withdraw_crash(worker)

    def clear(self, command: Request) -> None:
        """Removes the crashes of a command that was answered: it is not taken for their cause any
        more."""
        if self._has_any():
            with self._lock():
                super().clear(command)

    def is_quarantined(self, command: Request) -> bool:
        """True if the weights of the command's crashes sum to at least `quarantine_weight`."""
        if not self._has_any():
            return False
        with self._lock():
            return super().is_quarantined(command)

    def _has_any(self) -> bool:
        try:
            return self._path.stat().st_size > 0
        except FileNotFoundError:
            return False

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Locks the file, reads the counts, and writes them back at the end. If the file cannot be
        opened, or stays locked, this process uses its own counts."""
        try:
            opened = self._open_locked()
        # No descriptor is left, say, or a process was stopped while it had the lock. Neither may
        # fail the engine or block the event loop.
        except OSError as error:
            _log.warning("poison_requests_not_shared", extra={"reason": str(error)})
            yield
            return
        with opened as file:
            file.seek(0)
            stored = file.read()
            self._records, self._uncaused_ends = _decode(stored)
            self._remove_old()
            yield
            updated = b""
            if self._records or self._uncaused_ends:
                updated = msgspec.msgpack.encode(
                    _StoredRecords(list(self._records.items()), self._uncaused_ends)
                )
            if updated != stored:
                _write(file, updated)

    def _open_locked(self) -> FileIO:
        """Opens the file, locked until it is closed. Raises `OSError`. After a file stayed locked
        there is no attempt for `_LOCK_RETRY_S`, because each may block the event loop."""
        if time.monotonic() < self._next_try_at:
            raise BlockingIOError(_LOCKED_REASON)
        file = self._path.open("a+b", buffering=0)
        try:
            for _ in range(_LOCK_TRIES):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return file
                except BlockingIOError:
                    time.sleep(_LOCK_PAUSE_S)
            self._next_try_at = time.monotonic() + _LOCK_RETRY_S
            raise BlockingIOError(_LOCKED_REASON)
        except BaseException:
            file.close()
            raise


_decoder = msgspec.msgpack.Decoder(_StoredRecords)


def _decode(stored: bytes) -> tuple[OrderedDict[bytes, _CrashRecord], dict[int, float]]:
    if not stored:
        return OrderedDict(), {}
    try:
        decoded = _decoder.decode(stored)
    # the writing process was killed, or the disk was full
    except msgspec.MsgspecError as error:
        _log.warning("poison_requests_unreadable", extra={"reason": str(error)})
        return OrderedDict(), {}
    return OrderedDict(decoded.records), decoded.uncaused_ends


def _write(file: FileIO, data: bytes) -> None:
    file.truncate(0)
    try:
        written = file.write(data)
    except OSError as error:  # the disk is full: no reason to fail the engine
        _log.warning("poison_requests_not_written", extra={"reason": str(error)})
        return
    if written != len(data):
        _log.warning(
            "poison_requests_not_written",
            extra={"reason": f"only {written} of {len(data)} bytes were written"},
        )


def _fingerprint(command: Request) -> bytes:
    anonymous = msgspec.structs.replace(command, id="")
    return hashlib.blake2b(frame([anonymous]), digest_size=16).digest()
