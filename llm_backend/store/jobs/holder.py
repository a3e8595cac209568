"""Who holds leases: a process, known by a name that no other ever has.

Where the database is a file, all who use it are on this machine, and whether one of them lives can
be told: it holds a lock on a file of its name, beside the database, which the kernel lets go of
when the process dies, however it dies. So what a killed server was at is taken up again by the next
one as it starts, and by its neighbours, without waiting for leases to run out.
"""

import contextlib
import fcntl
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from secrets import token_hex

__all__ = ["Holder"]


class Holder:
    """A process that claims jobs from a database; `database` is its file, if it is one."""

    def __init__(self, database: Path | None) -> None:
        self._name = token_hex(8)
        self._folder = database and database.with_name(f"{database.name}-holders")
        self._numbers = count(1)

    @contextlib.contextmanager
    def living(self) -> Iterator[None]:
        """Shows that it lives. Raises `OSError` where the folder cannot be used."""
        if self._folder is None:
            yield
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for name in self._folder.iterdir():
            if not name.suffix:
                self.is_alive(f"{name.name}/")  # which removes what the dead have left
        unnamed = self._folder / f"{self._name}.new"  # named once it is locked
        with unnamed.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            named = unnamed.rename(self._folder / self._name)
            try:
                yield
            finally:
                named.unlink(missing_ok=True)

    @property
    def knows_the_dead(self) -> bool:
        """Whether it can tell who lives."""
        return self._folder is not None

    def new_leases(self, number: int) -> list[str]:
        """Names for so many leases of its own."""
        return [f"{self._name}/{next(self._numbers)}" for _ in range(number)]

    def is_alive(self, lease: str) -> bool:
        """Whether the holder of this lease lives; true where that cannot be told."""
        name = lease.partition("/")[0]
        if self._folder is None or name == self._name:
            return True
        try:
            with (self._folder / name).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(lock.name).unlink(missing_ok=True)
        except FileNotFoundError:
            return False
        except OSError:  # it is held
            return True
        return False
