"""Poison requests: commands that may have crashed the worker, each with the weight of its crashes:
1 if it was likely the cause, less if others were likelier. At `quarantine_weight` (two) a command
is quarantined: the worker does not get it again."""

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


_KILLED_WORKERS_S = 60.0  # time that workers which were killed from outside are remembered
_LOCK_TRIES, _LOCK_PAUSE_S = 50, 0.001  # a process has the lock for much less than this
_LOCK_RETRY_S = 1.0
_IS_LOCKED = "another process has it locked"


class _CrashRecord(msgspec.Struct, frozen=True, array_like=True):
    crashes: dict[int, float]  # weight of each crash, by worker
    crashed_at: float


class _StoredRecords(msgspec.Struct, frozen=True, array_like=True):
    records: list[tuple[bytes, _CrashRecord]]
    killed_workers: dict[int, float]


class PoisonRequests:
    """Counts crashes by a fingerprint of the command, whichever client sends it. The last `limit`
    commands are remembered, each for `age_s` after its last crash. `clock` must be the same for all
    processes that share the counts.

    Workers are named by their process ids. A worker that was killed from outside does not count.
    Its owner calls `discard_crash` and other processes call `record_crash`, in any order.
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
        self._killed_workers: dict[
            int, float
        ] = {}  # by worker: when it was known that it was killed from outside

    def record_crash(self, candidates: Sequence[CrashCandidate], worker: int) -> None:
        """Counts a crash of the commands that were pending when a worker crashed."""
        self._forget()
        if worker in self._killed_workers:
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
        """Removes the crash of a worker that was killed from outside: no command caused it."""
        self._forget()
        self._killed_workers[worker] = self._clock()
        for key, record in list(self._records.items()):
            crashes = {one: weight for one, weight in record.crashes.items() if one != worker}
            self._records[key] = _CrashRecord(crashes, record.crashed_at)
            if not crashes:
                del self._records[key]

    def clear(self, command: Request) -> None:
        """Removes the crashes of a command that was answered: it did not cause them."""
        if self._records:
            self._records.pop(_fingerprint(command), None)

    def is_quarantined(self, command: Request) -> bool:
        """True if the crashes of such a command weigh at least `quarantine_weight`."""
        return (
            bool(self._records)
            and self._crash_weight(_fingerprint(command)) >= self._quarantine_weight
        )

    def _crash_weight(self, key: bytes) -> float:
        record = self._records.get(key)
        if record is None or self._is_old(record):
            return 0
        return sum(record.crashes.values())

    def _forget(self) -> None:
        """Removes records that are too old."""
        for key in [key for key, record in self._records.items() if self._is_old(record)]:
            del self._records[key]
        since = self._clock() - _KILLED_WORKERS_S
        self._killed_workers = {one: at for one, at in self._killed_workers.items() if at >= since}

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
        self._next_try_s = 0.0

    def record_crash(self, candidates: Sequence[CrashCandidate], worker: int) -> None:
        """Counts a crash of the commands that were pending when a worker crashed."""
        if candidates:
            with self._lock():
                super().record_crash(candidates, worker)

    def discard_crash(self, worker: int) -> None:
        """Removes the crash of a worker that was killed from outside: no command caused it."""
        with self._lock():
            super().discard_crash(worker)

    def clear(self, command: Request) -> None:
        """Removes the crashes of a command that was answered: it did not cause them."""
        if self._has_any():
            with self._lock():
                super().clear(command)

    def is_quarantined(self, command: Request) -> bool:
        """True if the crashes of such a command weigh at least `quarantine_weight`."""
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
        opened, or is locked for longer than a moment, the counts of this process are used."""
        try:
            opened = self._open_locked()
        # no descriptor is left, or a process that has the lock is stopped: no reason to fail the
        # engine, or to block the event loop
        except OSError as error:
            _log.warning("poison_requests_not_shared", extra={"reason": str(error)})
            yield
            return
        with opened as file:
            file.seek(0)
            stored = file.read()
            self._records, self._killed_workers = _decode(stored)
            self._forget()
            yield
            current = b""
            if self._records or self._killed_workers:
                current = msgspec.msgpack.encode(
                    _StoredRecords(list(self._records.items()), self._killed_workers)
                )
            if current != stored:
                _write(file, current)

    def _open_locked(self) -> FileIO:
        """Opens the file, locked until it is closed. Raises `OSError`. After a failure it is not
        tried for a second: each try may hold up the event loop."""
        if time.monotonic() < self._next_try_s:
            raise BlockingIOError(_IS_LOCKED)
        file = self._path.open("a+b", buffering=0)
        try:
            for _ in range(_LOCK_TRIES):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return file
                except BlockingIOError:
                    time.sleep(_LOCK_PAUSE_S)
            self._next_try_s = time.monotonic() + _LOCK_RETRY_S
            raise BlockingIOError(_IS_LOCKED)
        except BaseException:
            file.close()
            raise


_decoder = msgspec.msgpack.Decoder(_StoredRecords)


def _decode(stored: bytes) -> tuple[OrderedDict[bytes, _CrashRecord], dict[int, float]]:
    if not stored:
        return OrderedDict(), {}
    try:
        decoded = _decoder.decode(stored)
    # the process that wrote it was killed, or the disk was full
    except msgspec.MsgspecError as error:
        _log.warning("poison_requests_unreadable", extra={"reason": str(error)})
        return OrderedDict(), {}
    return OrderedDict(decoded.records), decoded.killed_workers


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
