"""Index of prefixes saved in files or host memory: finds those that share the most leading blocks
with given tokens, or the longest one that they begin with. Pure; it holds hashes of blocks instead
of tokens: 16 bytes for 64 tokens."""

from collections import OrderedDict, abc
from dataclasses import dataclass
from itertools import takewhile

from llm_backend.engine.kv_cache.blocks import block_hashes, tokens_name
from llm_backend.engine.messages import PREFIX_BLOCK


@dataclass(frozen=True, kw_only=True)
class PrefixEntry:
    """A prefix saved as a file or a state of `size` bytes; `name` is a hash of its `tokens` tokens,
    which fill at least one block."""

    name: str
    tokens: int
    size: int
    blocks: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class PrefixMatch:
    """A saved prefix of given tokens: `entry` shares at least the first `tokens` of them."""

    entry: PrefixEntry
    tokens: int


class PrefixIndex:
    """The saved prefixes of one model, of at most `limit_bytes`; chooses least recently used ones
    (LRU) for eviction."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[str, PrefixEntry] = OrderedDict()  # least recently used first
        self._by_block: dict[bytes, dict[str, PrefixEntry]] = {}
        self._by_last_block: dict[bytes, dict[str, PrefixEntry]] = {}
        self._read: set[str] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def add(self, entry: PrefixEntry) -> None:
        """Adds an entry as the most recently used one, or replaces it."""
        self.remove(entry.name)
        self._entries[entry.name] = entry
        self.bytes += entry.size
        for block in entry.blocks:
            self._by_block.setdefault(block, {})[entry.name] = entry
        self._by_last_block.setdefault(entry.blocks[-1], {})[entry.name] = entry

    def remove(self, name: str) -> None:
        """Removes an entry, if it is in the index."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        self._read.discard(name)
        self.bytes -= entry.size
        for block in entry.blocks:
            _drop(self._by_block, block, name)
        _drop(self._by_last_block, entry.blocks[-1], name)

    def mark_used(self, name: str) -> None:
        """Records that an entry was read, which makes it the most recently used one."""
        if name in self._entries:
            self.touch(name)
            self._read.add(name)

    def touch(self, name: str) -> None:
        """Makes an entry the most recently used one."""
        self._entries.move_to_end(name)

    def demote(self, name: str) -> None:
        """Makes an entry the least recently used one, which is evicted first."""
        self._entries.move_to_end(name, last=False)

    def entries(self) -> list[PrefixEntry]:
        """Returns all entries, least recently used first."""
        return list(self._entries.values())

    def match(self, tokens: abc.Sequence[int], *, can_roll_back: bool = True) -> PrefixMatch | None:
        """Returns the entry that shares most blocks with `tokens`, the smallest of several. If its
        state cannot be rolled back, it must be wholly a prefix of `tokens`."""
        if not can_roll_back:
            return self.whole_match(tokens)
        return min(self.longest_matches(tokens), key=lambda match: match.entry.size, default=None)

    def longest_matches(self, tokens: abc.Sequence[int]) -> list[PrefixMatch]:
        """Returns all entries that share most blocks with `tokens`. The owner of the entries
        compares the tokens after these blocks."""
        shared = self._known_blocks(tokens)
        if not shared:
            return []
        return [
            PrefixMatch(entry=entry, tokens=len(shared) * PREFIX_BLOCK)
            for entry in self._by_block[shared[-1]].values()
        ]

    def whole_match(self, tokens: abc.Sequence[int]) -> PrefixMatch | None:
        """Returns the longest entry that is wholly a prefix of `tokens`."""
        for block in reversed(self._known_blocks(tokens)):
            ending = self._by_last_block.get(block, {}).values()
            for entry in sorted(ending, key=lambda entry: entry.tokens, reverse=True):
                if entry.name == tokens_name(tokens[: entry.tokens]):
                    return PrefixMatch(entry=entry, tokens=entry.tokens)
        return None

    def find_replaced(self, entry: PrefixEntry) -> list[str]:
        """Returns the names of shorter entries that were never read and whose blocks begin those of
        `entry`: a longer version of a chat replaces the shorter ones."""
        return [
            other.name
            for block in entry.blocks
            for other in self._by_last_block.get(block, {}).values()
            if other.name not in self._read and other.tokens < entry.tokens
        ]

    def find_removable(
        self, entry: PrefixEntry, retained: abc.Collection[str], *, can_roll_back: bool
    ) -> list[str] | None:
        """Returns the names of entries to remove for a new one: those that it replaces, and those
        evicted for its size. None if that does not suffice without the `retained` ones. Without
        `can_roll_back` it replaces none: a longer state does not serve a chat that departs."""
        replaced = self.find_replaced(entry) if can_roll_back else []
        replaced = [name for name in replaced if name not in retained]
        freed = sum(self._entries[name].size for name in replaced)
        evicted = self.find_evictable(entry.size - freed, {*retained, *replaced})
        return None if evicted is None else [*replaced, *evicted]

    def find_evictable(self, size: int, retained: abc.Collection[str]) -> list[str] | None:
        """Returns the names of entries to evict for one of `size` bytes, least recently used first.
        None if that does not suffice without the `retained` ones."""
        evicted, excess = [], self.bytes + size - self._limit_bytes
        for entry in self._entries.values():
            if excess <= 0:
                break
            if entry.name not in retained:
                evicted.append(entry.name)
                excess -= entry.size
        return evicted if excess <= 0 else None

    def _known_blocks(self, tokens: abc.Sequence[int]) -> list[bytes]:
        """Returns the hashes of the leading blocks of `tokens` that some entry has, too."""
        return list(takewhile(self._by_block.__contains__, block_hashes(tokens)))


def _drop(entries: dict[bytes, dict[str, PrefixEntry]], block: bytes, name: str) -> None:
    del entries[block][name]
    if not entries[block]:
        del entries[block]
