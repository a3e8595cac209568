"""Which prefixes are in files, and which of them a text begins with. Pure: it knows the hashes of
their blocks and not their tokens, so it takes 16 bytes for 64 tokens.
"""

from collections.abc import Collection
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from itertools import takewhile

from llm_backend.engine.kv_cache.prefix_files.blocks import block_hashes, text_name
from llm_backend.engine.messages import PREFIX_BLOCK

__all__ = ["Entry", "Index", "Match"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of `size` bytes with the prefix `name`, of so many tokens, at least one block."""

    name: str
    tokens: int
    size: int
    blocks: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Match:
    """A text begins as `entry` does, for at least so many tokens."""

    entry: Entry
    tokens: int


class Index:
    """The files of one model, `limit_bytes` of them at most."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: dict[str, Entry] = {}  # the one used longest ago first
        self._holders: dict[bytes, dict[str, Entry]] = {}  # by the hash of a block
        self._ending: dict[bytes, dict[str, Entry]] = {}  # by that of their last one
        self._read: set[str] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, entry: Entry) -> None:
        """There is a file, used last."""
        self.remove(entry.name)
        self._entries[entry.name] = entry
        self.bytes += entry.size
        for block in entry.blocks:
            self._holders.setdefault(block, {})[entry.name] = entry
        self._ending.setdefault(entry.blocks[-1], {})[entry.name] = entry

    def remove(self, name: str) -> None:
        """There is no such file, or not any longer."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._read.discard(name)
        self.bytes -= entry.size
        for block in entry.blocks:
            _drop(self._holders, block, name)
        _drop(self._ending, entry.blocks[-1], name)

    def used(self, name: str) -> None:
        """A file was read."""
        if name in self._entries:
            self._entries[name] = self._entries.pop(name)
            self._read.add(name)

    def match(self, tokens: Tokens[int]) -> Match | None:
        """The file with the longest prefix of a text, the smallest of several."""
        shared = self._along(tokens)
        if not shared:
            return None
        smallest = min(self._holders[shared[-1]].values(), key=lambda entry: entry.size)
        return Match(entry=smallest, tokens=len(shared) * PREFIX_BLOCK)

    def whole_match(self, tokens: Tokens[int]) -> Match | None:
        """The longest of the files all of which a text begins with."""
        for block in reversed(self._along(tokens)):
            ending = self._ending.get(block, {}).values()
            for entry in sorted(ending, key=lambda entry: entry.tokens, reverse=True):
                if entry.name == text_name(tokens[: entry.tokens]):
                    return Match(entry=entry, tokens=entry.tokens)
        return None

    def outdone(self, entry: Entry) -> list[str]:
        """The files with no more than how another one begins, which nobody has come for: so a chat
        that goes on takes the place of what it was."""
        return [
            other.name
            for block in entry.blocks
            for other in self._ending.get(block, {}).values()
            if other.name not in self._read and other.tokens < entry.tokens
        ]

    def giving_way(self, entry: Entry, spared: Collection[str]) -> list[str] | None:
        """The files that go for another one: those that it outdoes, and as many as it needs the
        room of. None if these would be among the `spared`."""
        outdone = [name for name in self.outdone(entry) if name not in spared]
        freed = sum(self._entries[name].size for name in outdone)
        crowded = self.crowded_out(entry.size - freed, {*spared, *outdone})
        return None if crowded is None else [*outdone, *crowded]

    def crowded_out(self, size: int, spared: Collection[str]) -> list[str] | None:
        """The files that make room for one of `size` bytes, those used longest ago first; None if
        that takes more than those that are not `spared`."""
        crowded, left = [], self.bytes + size - self._limit_bytes
        for entry in self._entries.values():
            if left <= 0:
                break
            if entry.name not in spared:
                crowded.append(entry.name)
                left -= entry.size
        return crowded if left <= 0 else None

    def _along(self, tokens: Tokens[int]) -> list[bytes]:
        """The blocks that a text has in common with some file."""
        return list(takewhile(self._holders.__contains__, block_hashes(tokens)))


def _drop(files: dict[bytes, dict[str, Entry]], block: bytes, name: str) -> None:
    del files[block][name]
    if not files[block]:
        del files[block]
