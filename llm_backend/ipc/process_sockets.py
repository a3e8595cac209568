"""Sockets at which API processes of one server ask each other, in the folder that they share."""

from pathlib import Path

_PREFIX = "chats-"  # short, as the address of a Unix socket has at most 103 bytes


def process_socket(folder: Path, pid: int) -> Path:
    """Returns the path of the socket of a process."""
    return folder / f"{_PREFIX}{pid:x}"


def process_sockets(folder: Path) -> list[Path]:
    """Returns the paths of the sockets of all processes. A killed process leaves its socket behind
    until its parent removes it."""
    return sorted(folder.glob(f"{_PREFIX}*"))
