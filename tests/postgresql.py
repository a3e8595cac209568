"""A PostgreSQL server for the tests: found, or installed, or the tests that need it are skipped.

Where the environment says `CI`, not having it is a failure: there nothing may go untested.
"""

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.missing import missing
from tests.ports import free_port

__all__ = ["PostgresqlServer", "postgresql_server", "running_postgresql"]

_INSTALL = Path(__file__).parent.parent / "scripts" / "install_postgresql.sh"
_START_TIMEOUT_S = 90.0
_UNSAFE_BUT_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
_SETTINGS = (*_UNSAFE_BUT_QUICK, "unix_socket_directories=", "listen_addresses=127.0.0.1")
_database_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class PostgresqlServer:
    """A running server; everybody on the loopback interface is its superuser."""

    binaries: Path
    port: int

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(_database_numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drops a database of `new_database`, with its connections."""
        self.sql("postgres", f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, database: str, statement: str) -> str:
        """Returns psql's output for one statement."""
        command = [self.binaries / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", self.url(database)]
        done = subprocess.run(
            [*command, "-c", statement], check=True, capture_output=True, text=True
        )
        return done.stdout


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One server for the session; where there can be none, the test is skipped."""
    with running_postgresql() as server:
        yield server


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """A server of its own; where there can be none, a test is skipped."""
    binaries = _binaries() or _installed()
    if binaries is None:
        missing(f"PostgreSQL is not installed, and {_INSTALL.name} could not install it.")
    with _running(binaries) as server:
        yield server


def _binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "postgres", "psql")):
            return folder
    return None


def _version(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _installed() -> Path | None:
    with _INSTALL.open() as script:
        fcntl.flock(script, fcntl.LOCK_EX)  # tests may run in several processes
        if found := _binaries():
            return found
        done = subprocess.run(["sh", _INSTALL], check=False)
    return _binaries() if done.returncode == 0 else None


@contextmanager
def _running(binaries: Path) -> Iterator[PostgresqlServer]:
    # Not below pytest's own folder: the user that the server runs as may not enter that one.
    folder = Path(tempfile.mkdtemp(prefix="llm-backend-postgresql-"))
    try:
        as_user = _as_user(folder)
        data = folder / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust"]
        plain = ["-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([*as_user, *initdb, *plain], check=True, stdout=subprocess.DEVNULL)
        with _serving(as_user, binaries, data, folder / "log") as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _serving(
    as_user: list[str], binaries: Path, data: Path, log: Path
) -> Iterator[PostgresqlServer]:
    server = PostgresqlServer(binaries=binaries, port=free_port())
    command = [*as_user, binaries / "postgres", "-D", data, "-p", str(server.port)]
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *settings], stdout=output, stderr=output)
    try:
        _wait(server, process, log)
        yield server
    finally:
        process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        process.wait(_START_TIMEOUT_S)


def _wait(server: PostgresqlServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.sql("postgres", "SELECT 1")
            return
        except subprocess.CalledProcessError:
            time.sleep(0.05)
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")


def _as_user(folder: Path) -> list[str]:
    """Prefix of a program that refuses to run as root; `folder` becomes its user's."""
    if os.geteuid() != 0:
        return []
    user = "postgres" if _exists("postgres") else pwd.getpwuid(65534).pw_name
    shutil.chown(folder, user)
    if shutil.which("setpriv"):  # and the server dies with the tests, however they die
        return [
            "setpriv",
            f"--reuid={user}",
            f"--regid={_group_of(user)}",
            "--clear-groups",
            "--pdeathsig=QUIT",
        ]
    return ["runuser", "-u", user, "--"]


def _exists(user: str) -> bool:
    return subprocess.run(["id", user], check=False, capture_output=True).returncode == 0


def _group_of(user: str) -> str:
    done = subprocess.run(["id", "-gn", user], check=True, capture_output=True, text=True)
    return done.stdout.strip()
