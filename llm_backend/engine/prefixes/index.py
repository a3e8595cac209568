"""Which prefixes are in files, and which of them a text begins with. Pure: it knows the hashes of
their blocks and not their tokens, so it takes 16 bytes for 64 tokens.
"""

from collections.abc import Collection, Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from llm_backend.engine.messages import PREFIX_BLOCK
from llm_backend.engine.prefixes.blocks import block_hashes, text_name

__all__ = ["Entry", "Index", "Match"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of `size` bytes with the prefix `name`, of so many tokens."""

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

    def remove(self, name: str) -> None:
        """There is no such file, or not any longer."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._read.discard(name)
        self.bytes -= entry.size
        for block in entry.blocks:
            del self._holders[block][name]
            if not self._holders[block]:
                del self._holders[block]

    def used(self, name: str) -> None:
        """A file was read."""
        if name in self._entries:
            self._entries[name] = self._entries.pop(name)
            self._read.add(name)

    def match(self, tokens: Tokens[int]) -> Match | None:
        """The file with the longest prefix of a text, the smallest of several."""
        found: Match | None = None
        for number, holders in enumerate(self._along(tokens), start=1):
            smallest = min(holders.values(), key=lambda entry: entry.size)
            found = Match(entry=smallest, tokens=number * PREFIX_BLOCK)
        return found

    def whole_match(self, tokens: Tokens[int]) -> Match | None:
        """The longest of the files all of which a text begins with."""
        ended = [
            entry
            for number, holders in enumerate(self._along(tokens), start=1)
            for entry in holders.values()
            if len(entry.blocks) == number and entry.name == text_name(tokens[: entry.tokens])
        ]
        if not ended:
            return None
        longest = max(ended, key=lambda entry: entry.tokens)
        return Match(entry=longest, tokens=longest.tokens)

    def outdone(self, entry: Entry) -> list[str]:
        """The files with no more than how another one begins, which nobody has come for: so a chat
        that goes on takes the place of what it was."""
        return [
            other.name
            for other in self._entries.values()
            if other.name not in self._read
            and other.tokens < entry.tokens
            and entry.blocks[: len(other.blocks)][-1:] == other.blocks[-1:]
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

    def _along(self, tokens: Tokens[int]) -> Iterator[dict[str, Entry]]:
        """The files that have a text's first block, its second one too, and so on."""
        for block in block_hashes(tokens):
            holders = self._holders.get(block)
            if holders is None:
                return
            yield holders
