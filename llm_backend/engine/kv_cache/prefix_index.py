"""Index of saved prefixes, in files or in host memory: finds the longest one of a text. Pure: it
holds the hashes of blocks, not tokens, so it takes 16 bytes for 64 tokens."""

from collections import OrderedDict, abc
from dataclasses import dataclass
from itertools import takewhile

from llm_backend.engine.kv_cache.blocks import block_hashes, text_name
from llm_backend.engine.messages import PREFIX_BLOCK


@dataclass(frozen=True, kw_only=True)
class PrefixEntry:
    """A saved prefix, as a file or a state of `size` bytes; `name` is a hash of its `tokens`
    tokens, which fill at least one block."""

    name: str
    tokens: int
    size: int
    blocks: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class PrefixMatch:
    """A stored prefix of a text: the text and `entry` have at least the first `tokens` tokens in
    common."""

    entry: PrefixEntry
    tokens: int


class PrefixIndex:
    """The files or states of one model, `limit_bytes` of them at most; evicts least recently used
    ones (LRU)."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[str, PrefixEntry] = OrderedDict()  # least recently used first
        self._by_block: dict[bytes, dict[str, PrefixEntry]] = {}  # by the hash of a block
        self._by_last_block: dict[
            bytes, dict[str, PrefixEntry]
        ] = {}  # by the hash of their last block
        self._read: set[str] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, entry: PrefixEntry) -> None:
        """Add an entry, as the most recently used one."""
        self.remove(entry.name)
        self._entries[entry.name] = entry
        self.bytes += entry.size
        for block in entry.blocks:
            self._by_block.setdefault(block, {})[entry.name] = entry
        self._by_last_block.setdefault(entry.blocks[-1], {})[entry.name] = entry

    def remove(self, name: str) -> None:
        """Remove an entry, if it is in the index."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._read.discard(name)
        self.bytes -= entry.size
        for block in entry.blocks:
            _drop(self._by_block, block, name)
        _drop(self._by_last_block, entry.blocks[-1], name)

    def mark_used(self, name: str) -> None:
        """Note that an entry was read: it becomes the most recently used one."""
        if name in self._entries:
            self.touch(name)
            self._read.add(name)

    def touch(self, name: str) -> None:
        """Make an entry the most recently used one."""
        self._entries.move_to_end(name)

    def demote(self, name: str) -> None:
        """Make an entry the least recently used one, which is evicted first."""
        self._entries.move_to_end(name, last=False)

    def oldest(self) -> list[PrefixEntry]:
        """All entries, least recently used first."""
        return list(self._entries.values())

    def match(self, tokens: abc.Sequence[int]) -> PrefixMatch | None:
        """The entry with the most blocks of a text, the smallest of several."""
        return min(self.longest_matches(tokens), key=lambda match: match.entry.size, default=None)

    def longest_matches(self, tokens: abc.Sequence[int]) -> list[PrefixMatch]:
        """All entries with the most blocks of a text; the tokens behind these blocks, fewer than
        another one, are known only to the owner of the entries."""
        shared = self._known_blocks(tokens)
        if not shared:
            return []
        return [
            PrefixMatch(entry=entry, tokens=len(shared) * PREFIX_BLOCK)
            for entry in self._by_block[shared[-1]].values()
        ]

    def whole_match(self, tokens: abc.Sequence[int]) -> PrefixMatch | None:
        """The longest entry whose whole content is a prefix of the text."""
        for block in reversed(self._known_blocks(tokens)):
            ending = self._by_last_block.get(block, {}).values()
            for entry in sorted(ending, key=lambda entry: entry.tokens, reverse=True):
                if entry.name == text_name(tokens[: entry.tokens]):
                    return PrefixMatch(entry=entry, tokens=entry.tokens)
        return None

    def find_replaced(self, entry: PrefixEntry) -> list[str]:
        """Shorter entries whose whole blocks are a prefix of `entry`, and that were never read: a
        longer version of a chat replaces the shorter ones."""
        return [
            other.name
            for block in entry.blocks
            for other in self._by_last_block.get(block, {}).values()
            if other.name not in self._read and other.tokens < entry.tokens
        ]

    def find_removable(self, entry: PrefixEntry, retained: abc.Collection[str]) -> list[str] | None:
        """Entries to remove for a new one: those that it replaces, and those evicted for its size.
        None if that would require `retained` ones."""
        replaced = [name for name in self.find_replaced(entry) if name not in retained]
        freed = sum(self._entries[name].size for name in replaced)
        evicted = self.find_evictable(entry.size - freed, {*retained, *replaced})
        return None if evicted is None else [*replaced, *evicted]

    def find_evictable(self, size: int, retained: abc.Collection[str]) -> list[str] | None:
        """Entries to evict for one of `size` bytes, least recently used first; None if that would
        require `retained` ones."""
        evicted, excess = [], self.bytes + size - self._limit_bytes
        for entry in self._entries.values():
            if excess <= 0:
                break
            if entry.name not in retained:
                evicted.append(entry.name)
                excess -= entry.size
        return evicted if excess <= 0 else None

    def _known_blocks(self, tokens: abc.Sequence[int]) -> list[bytes]:
        """Hashes of the leading blocks of a text that some entry holds too."""
        return list(takewhile(self._by_block.__contains__, block_hashes(tokens)))


def _drop(entries: dict[bytes, dict[str, PrefixEntry]], block: bytes, name: str) -> None:
    del entries[block][name]
    if not entries[block]:
        del entries[block]
