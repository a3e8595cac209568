"""Holder of leases: a process, with a name that no other process ever has.

If the database is a file, all its processes are on this machine, and can detect each other's death.
Each locks a file of its name beside the database, and the kernel releases the lock when the process
dies. So other servers claim the jobs of a killed one immediately, without waiting for its leases to
expire. The name begins with that of the server, so that a server can name others that use the
database.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


class LeaseHolder:
    """A process that claims jobs from a database; `database` is its file, or None for
    PostgreSQL. `server` is the name that all processes of its server share: the id of the first
    process, `-`, and a text that no other server has."""

    def __init__(self, database: Path | None, server: str | None = None) -> None:
        self._server = server or f"{os.getpid()}-{token_hex(4)}"
        self._name = f"{self._server}-{token_hex(8)}"
        self._folder = database and database.with_name(f"{database.name}-holders")
        self._numbers = count(1)

    @contextlib.contextmanager
    def mark_alive(self) -> Iterator[None]:
        """Locks the file that marks this process alive, while the context lasts. Raises `OSError`
        if the folder cannot be used."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.iterdir():
            self.remove_dead_holder(f"{path.name}/")
        named = self._folder / self._name
        with _create_locked(named):
            try:
                yield
            finally:
                named.unlink(missing_ok=True)

    def other_servers(self) -> list[int]:
        """Returns the process ids of other servers that use the database; none unless it is a
        file."""
        if self._folder is None:
            return []
        alive = [
            path.name
            for path in self._folder.iterdir()
            if not self.remove_dead_holder(f"{path.name}/")
        ]
        servers = {name.rpartition("-")[0] for name in alive} - {self._server}
        # The file of an earlier version names no server.
        return sorted(int(server.partition("-")[0]) for server in servers if server)

    @property
    def can_detect_death(self) -> bool:
        """True if this process can find out which others are alive."""
        return self._folder is not None

    def new_leases(self, number: int) -> list[str]:
        """Returns names for this number of new leases."""
        return [f"{self._name}/{next(self._numbers)}" for _ in range(number)]

    def remove_dead_holder(self, lease: str) -> bool:
        """Removes the file of this lease's holder if that is dead. Returns True if it is known to
        be dead."""
        name = lease.partition("/")[0]
        if self._folder is None or name == self._name:
            return False
        try:
            with (self._folder / name).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(lock.name).unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except OSError:  # the process holds the lock
            return False
        return True


def _create_locked(path: Path) -> BinaryIO:
    """Creates a file that is locked before it gets its name. While it is unlocked, another process
    may remove it as that of a dead process; it is then created again."""
    unnamed = path.with_name(f"{path.name}.new")
    while True:
        lock = unnamed.open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            unnamed.rename(path)
            return lock
        except FileNotFoundError:
            lock.close()
