"""Which commands were under way when the engine died: the ones that do it again are not tried a
third time."""

import hashlib
from collections import OrderedDict

import msgspec

from llm_backend.engine.link import Request
from llm_backend.engine.wire import frame

__all__ = ["Suspects"]


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


def _fingerprint(command: Request) -> bytes:
    nameless = msgspec.structs.replace(command, id="")
    return hashlib.blake2b(frame([nameless]), digest_size=16).digest()
