"""Which commands were under way when the engine died: the ones that do it again are not tried a
third time."""

import fcntl
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from llm_backend.engine.link import Request
from llm_backend.engine.wire import frame

__all__ = ["SharedSuspects", "Suspects"]


class Suspects:
    """Counts deaths by what a command contains, whoever sends it; remembers the last `limit`."""

    def __init__(self, *, limit: int, crashes: int) -> None:
        self._limit = limit
        self._crashes = crashes
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def blame(self, commands: list[Request]) -> None:
        """The engine died with these under way."""
        for command in commands:
            key = _fingerprint(command)
            self._counts[key] = self._counts.get(key, 0) + 1
            self._counts.move_to_end(key)
        while len(self._counts) > self._limit:
            self._counts.popitem(last=False)

    def clear(self, command: Request) -> None:
        """The command was answered: it was not to blame."""
        if self._counts:
            self._counts.pop(_fingerprint(command), None)

    def is_convicted(self, command: Request) -> bool:
        """Whether the engine has died too often with such a command."""
        if not self._counts:
            return False
        return self._counts.get(_fingerprint(command), 0) >= self._crashes


class SharedSuspects(Suspects):
    """The counts of all processes that use one worker, in a file that each of them locks: a command
    that has ended the worker is known whoever is asked. The file is empty while nothing has died.
    """

    def __init__(self, path: Path, *, limit: int, crashes: int) -> None:
        super().__init__(limit=limit, crashes=crashes)
        self._path = path

    def blame(self, commands: list[Request]) -> None:
        """The engine died with these under way."""
        if commands:
            with self._shared():
                super().blame(commands)

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
        return self._path.exists() and self._path.stat().st_size > 0

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """The counts as they are now; what was made of them is seen by the others."""
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            found = file.read()
            self._counts = OrderedDict(_counts.decode(found) if found else ())
            yield
            kept = msgspec.msgpack.encode(list(self._counts.items())) if self._counts else b""
            if kept != found:
                file.truncate(0)
                file.write(kept)


_counts = msgspec.msgpack.Decoder(list[tuple[bytes, int]])


def _fingerprint(command: Request) -> bytes:
    nameless = msgspec.structs.replace(command, id="")
    return hashlib.blake2b(frame([nameless]), digest_size=16).digest()
