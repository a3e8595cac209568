"""Poison requests: commands that were pending when the worker crashed. One that crashes it again
is quarantined: it is not tried a third time."""

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

__all__ = ["PoisonRequests", "SharedPoisonRequests"]

_log = logging.getLogger(__name__)


_KILLED_WORKERS_S = 60.0  # for which it is remembered that no command caused a worker's death


class _Record(msgspec.Struct, frozen=True, array_like=True):
    crashes: dict[int, float]  # share of the blame, by worker
    crashed_at: float


class _StoredRecords(msgspec.Struct, frozen=True, array_like=True):
    records: list[tuple[bytes, _Record]]
    killed_workers: dict[int, float]


class PoisonRequests:
    """Counts crashes by a fingerprint of the command, whichever client sends it; remembers the last
    `limit`, each for `age_s` after its last crash. `clock` must be the same for all processes that
    share the counts.

    Workers are named by their process ids. The death of a worker that was killed from outside does
    not count, in whichever order its owner acquits it and other processes blame their commands.
    """

    def __init__(
        self,
        *,
        limit: int,
        crashes: int,
        age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._crashes = crashes
        self._age_s = age_s
        self._clock = clock
        self._records: OrderedDict[bytes, _Record] = OrderedDict()
        self._killed_workers: dict[int, float] = {}  # workers, by the time of their acquittal

    def record_crash(self, suspicions: Sequence[CrashCandidate], worker: int) -> None:
        """Blame the commands that were pending when a worker died."""
        self._forget()
        if worker in self._killed_workers:
            return
        for suspicion in suspicions:
            key = _fingerprint(suspicion.command)
            record = self._records.pop(key, None)
            deaths = dict(record.crashes) if record else {}
            deaths[worker] = max(suspicion.weight, deaths.get(worker, 0.0))
            self._records[key] = _Record(deaths, self._clock())
        while len(self._records) > self._limit:
            self._records.popitem(last=False)

    def discard_crash(self, worker: int) -> None:
        """Note that a worker was killed from outside: no command is to blame for its death."""
        self._forget()
        self._killed_workers[worker] = self._clock()
        for key, record in list(self._records.items()):
            deaths = {one: weight for one, weight in record.crashes.items() if one != worker}
            self._records[key] = _Record(deaths, record.crashed_at)
            if not deaths:
                del self._records[key]

    def clear(self, command: Request) -> None:
        """Remove a command that was answered: it was not to blame."""
        if self._records:
            self._records.pop(_fingerprint(command), None)

    def is_quarantined(self, command: Request) -> bool:
        """True if such a command has crashed the engine too often."""
        return bool(self._records) and self._crash_weight(_fingerprint(command)) >= self._crashes

    def _crash_weight(self, key: bytes) -> float:
        record = self._records.get(key)
        if record is None or self._is_old(record):
            return 0
        return sum(record.crashes.values())

    def _forget(self) -> None:
        """Remove records that are too old."""
        for key in [key for key, record in self._records.items() if self._is_old(record)]:
            del self._records[key]
        since = self._clock() - _KILLED_WORKERS_S
        self._killed_workers = {one: at for one, at in self._killed_workers.items() if at >= since}

    def _is_old(self, record: _Record) -> bool:
        return self._clock() - record.crashed_at > self._age_s


class SharedPoisonRequests(PoisonRequests):
    """Crash counts of all processes that use one worker, in a file that each of them locks, so
    that every process refuses a command that has crashed the worker. The file is empty while no
    worker has crashed; one that was left half written counts as empty, too."""

    def __init__(
        self,
        path: Path,
        *,
        limit: int,
        crashes: int,
        age_s: float,
        clock: Callable[[], float] = time.monotonic,  # of the machine, not of the process
    ) -> None:
        super().__init__(limit=limit, crashes=crashes, age_s=age_s, clock=clock)
        self._path = path

    def record_crash(self, suspicions: Sequence[CrashCandidate], worker: int) -> None:
        """Blame the commands that were pending when a worker died."""
        if suspicions:
            with self._lock():
                super().record_crash(suspicions, worker)

    def discard_crash(self, worker: int) -> None:
        """Note that a worker was killed from outside: no command is to blame for its death."""
        with self._lock():
            super().discard_crash(worker)

    def clear(self, command: Request) -> None:
        """Remove a command that was answered: it was not to blame."""
        if self._has_any():
            with self._lock():
                super().clear(command)

    def is_quarantined(self, command: Request) -> bool:
        """True if such a command has crashed the engine too often."""
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
        """Locks the file and reads the counts; they are written back for the other processes at
        the end."""
        with self._path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            found = file.read()
            self._records, self._killed_workers = _decode(found)
            self._forget()
            yield
            kept = b""
            if self._records or self._killed_workers:
                kept = msgspec.msgpack.encode(
                    _StoredRecords(list(self._records.items()), self._killed_workers)
                )
            if kept != found:
                _write(file, kept)


_decoder = msgspec.msgpack.Decoder(_StoredRecords)


def _decode(found: bytes) -> tuple[OrderedDict[bytes, _Record], dict[int, float]]:
    if not found:
        return OrderedDict(), {}
    try:
        kept = _decoder.decode(found)
    # the process that wrote it was killed, or the disk was full
    except msgspec.MsgspecError as error:
        _log.warning("suspects_unreadable", extra={"reason": str(error)})
        return OrderedDict(), {}
    return OrderedDict(kept.records), kept.killed_workers


def _write(file: FileIO, kept: bytes) -> None:
    file.truncate(0)
    try:
        written = file.write(kept)
    except OSError as error:  # the disk is full: no reason to fail the engine
        _log.warning("suspects_not_written", extra={"reason": str(error)})
        return
    if written != len(kept):
        _log.warning("suspects_not_written", extra={"reason": f"{written} bytes had room"})


def _fingerprint(command: Request) -> bytes:
    nameless = msgspec.structs.replace(command, id="")
    return hashlib.blake2b(frame([nameless]), digest_size=16).digest()
