"""Which commands were under way when the engine died: the ones that do it again are not tried a
third time."""

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

from llm_backend.engine.link import Request, Suspicion
from llm_backend.engine.wire import frame

__all__ = ["SharedSuspects", "Suspects"]

_log = logging.getLogger(__name__)


class _Record(msgspec.Struct, frozen=True, array_like=True):
    deaths: float  # as many as it is believed to have caused
    blamed_at: float


class Suspects:
    """Counts deaths by what a command contains, whoever sends it; remembers the last `limit`, each
    for `age_s` after its last death. `clock` must be the same for all who share the counts.
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

    def blame(self, suspicions: Sequence[Suspicion]) -> None:
        """The engine died with these under way."""
        for suspicion in suspicions:
            key = _fingerprint(suspicion.command)
            deaths = self._deaths(key) + suspicion.weight
            self._records[key] = _Record(deaths, self._clock())
            self._records.move_to_end(key)
        while len(self._records) > self._limit:
            self._records.popitem(last=False)

    def clear(self, command: Request) -> None:
        """The command was answered: it was not to blame."""
        if self._records:
            self._records.pop(_fingerprint(command), None)

    def is_convicted(self, command: Request) -> bool:
        """Whether the engine has died too often with such a command."""
        return bool(self._records) and self._deaths(_fingerprint(command)) >= self._crashes

    def _deaths(self, key: bytes) -> float:
        record = self._records.get(key)
        if record is None or self._clock() - record.blamed_at > self._age_s:
            return 0
        return record.deaths


class SharedSuspects(Suspects):
    """The counts of all processes that use one worker, in a file that each of them locks: a command
    that has ended the worker is known whoever is asked. The file is empty while nothing has died;
    one that was left half written counts as empty, too.
    """

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

    def blame(self, suspicions: Sequence[Suspicion]) -> None:
        """The engine died with these under way."""
        if suspicions:
            with self._shared():
                super().blame(suspicions)

    def clear(self, command: Request) -> None:
        """The command was answered: it was not to blame."""
        if self._has_any():
            with self._shared():
                super().clear(command)

    def is_convicted(self, command: Request) -> bool:
        """Whether the engine has died too often with such a command."""
        if not self._has_any():
            return False
        with self._shared():
            return super().is_convicted(command)

    def _has_any(self) -> bool:
        try:
            return self._path.stat().st_size > 0
        except FileNotFoundError:
            return False

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """The counts as they are now; what was made of them is seen by the others."""
        with self._path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            found = file.read()
            self._records = _read(found)
            yield
            kept = msgspec.msgpack.encode(list(self._records.items())) if self._records else b""
            if kept != found:
                _write(file, kept)


_records = msgspec.msgpack.Decoder(list[tuple[bytes, _Record]])


def _read(found: bytes) -> OrderedDict[bytes, _Record]:
    if not found:
        return OrderedDict()
    try:
        return OrderedDict(_records.decode(found))
    except msgspec.MsgspecError as error:  # who wrote it was killed, or had no room
        _log.warning("suspects_unreadable", extra={"reason": str(error)})
        return OrderedDict()


def _write(file: FileIO, kept: bytes) -> None:
    file.truncate(0)
    try:
        written = file.write(kept)
    except OSError as error:  # no room: an engine is not given up for that
        _log.warning("suspects_not_written", extra={"reason": str(error)})
        return
    if written != len(kept):
        _log.warning("suspects_not_written", extra={"reason": f"{written} bytes had room"})


def _fingerprint(command: Request) -> bytes:
    nameless = msgspec.structs.replace(command, id="")
    return hashlib.blake2b(frame([nameless]), digest_size=16).digest()
