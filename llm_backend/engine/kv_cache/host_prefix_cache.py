"""Host prefix cache, the tier of the KV cache in host memory: states of prefixes whose slots were
overwritten, or emptied as cells ran out.

A slot that another sequence takes over leaves its whole state here, and a sequence that begins with
the same tokens restores it into its slot instead of computing it. Least recently used states are
evicted (LRU), for size and when the machine runs short of memory. The tier is shared by all slots
and priorities, and used by one thread only.
"""

from collections import abc
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.kv_cache.blocks import block_hashes, plain_length, tokens_name
from llm_backend.engine.kv_cache.cache import restore_cost
from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.kv_cache.prefix_index import (
    PrefixEntry,
    PrefixIndex,
    PrefixMatch,
)
from llm_backend.engine.messages import PREFIX_BLOCK

_TOKEN_BYTES = 36  # about: 8 of the list, 28 of an integer
_DEFAULT_DIVISOR = 4  # a quarter of the memory that is available once the model is loaded
_NEARLY_ALL_DIVISOR = 8  # nearly all of a state is all but an eighth
_RESERVE_DIVISOR = 16  # a sixteenth of the machine's memory: below it states are evicted


def default_limit_bytes(available_bytes: int) -> int:
    """Size limit by the memory that is available once the model is loaded: a quarter of it."""
    return available_bytes // _DEFAULT_DIVISOR


class HostPrefixCache:
    """States of at most `limit_bytes`. `can_roll_back` is False for models whose state cannot be
    truncated: they restore a state only if the prompt begins with all of its tokens. States are
    evicted while less than a sixteenth of `machine_bytes` is available."""

    def __init__(
        self,
        limit_bytes: int,
        *,
        can_roll_back: bool,
        machine_bytes: int,
        available_bytes: abc.Callable[[], int],
    ) -> None:
        self._index = PrefixIndex(limit_bytes)
        self._limit_bytes = limit_bytes
        self._can_roll_back = can_roll_back
        self._reserve_bytes = machine_bytes // _RESERVE_DIVISOR
        self._available_bytes = available_bytes
        self._prefixes: dict[str, Prefix] = {}
        self.saves = 0
        self.restores = 0
        self.restored_tokens = 0

    def __len__(self) -> int:
        return len(self._index)

    @property
    def bytes(self) -> int:
        """Size of all states, with their tokens."""
        return self._index.bytes

    def can_save(self, tokens: abc.Sequence[int]) -> bool:
        """True if there are tokens for a block, none of them is of an image or audio, and no
        state begins with all of them."""
        if len(tokens) < PREFIX_BLOCK or plain_length(tokens) < len(tokens):
            return False
        return all(match.tokens < len(tokens) for match in self._matches(tokens))

    def save(
        self,
        tokens: abc.Sequence[int],
        state_bytes: int,
        read_state: abc.Callable[[], NDArray[np.uint8]],
    ) -> None:
        """Reads a state of `state_bytes`, and adds it as the most recently used one. If states can
        be truncated, it replaces shorter states of the same prefix. If space or memory is short,
        the least recently used states are evicted first. A state is not read if it is larger than
        the limit, or if the machine would be short of memory even after all states were evicted."""
        size = state_bytes + _TOKEN_BYTES * len(tokens)
        if size > self._limit_bytes or self._shortage_bytes(size) > self.bytes:
            return
        entry = PrefixEntry(
            name=tokens_name(tokens), tokens=len(tokens), size=size, blocks=block_hashes(tokens)
        )
        if self._can_roll_back:
            for name in self._index.find_replaced(entry):
                self._remove(name)
        for name in self._index.find_evictable(size, ()) or ():
            self._remove(name)
        self._evict(self._shortage_bytes(size))
        self._prefixes[entry.name] = Prefix(tokens=list(tokens), state=read_state())
        self._index.add(entry)
        self.saves += 1

    def find(self, tokens: abc.Sequence[int]) -> Prefix | None:
        """Of the states that share the most whole blocks with these tokens, the one that saves the
        most, less the cost of restoring it; of equal ones the smallest. Only the tokens before the
        first image or audio are looked up."""
        if not self._prefixes:
            return None
        matches = self._matches(tokens[: plain_length(tokens)])
        best = max(matches, key=_gain_and_size, default=None)
        return None if best is None else self._prefixes[best.entry.name]

    def record_restore(self, prefix: Prefix, shared: int) -> None:
        """Notes that the first `shared` tokens of a state are restored into a slot.

        A state that is restored whole is removed, as the slot now holds its tokens. A state that is
        restored nearly whole is the next to be evicted. Most often the request continues the same
        chat, and only the last answer has other tokens now (it lacks its reasoning, for instance).
        The slot then holds everything that can be used again.
        """
        name, unused = tokens_name(prefix.tokens), len(prefix.tokens) - shared
        if not unused:
            self._remove(name)
        elif unused * _NEARLY_ALL_DIVISOR <= len(prefix.tokens):
            self._index.demote(name)
        else:
            self._index.touch(name)
        self.restores += 1
        self.restored_tokens += shared

    def release_memory(self) -> None:
        """Evicts states while the machine is short of memory."""
        if self._prefixes:
            self._evict(self._shortage_bytes(0))

    def _shortage_bytes(self, more: int) -> int:
        """Bytes that the machine lacks if `more` are allocated; negative if it lacks none."""
        return self._reserve_bytes + more - self._available_bytes()

    def _evict(self, shortage_bytes: int) -> None:
        """Evicts least recently used states until `shortage_bytes` are free."""
        for entry in self._index.entries():
            if shortage_bytes <= 0:
                break
            shortage_bytes -= entry.size
            self._remove(entry.name)

    def _matches(self, tokens: abc.Sequence[int]) -> list[PrefixMatch]:
        """The usable states with the most blocks of `tokens`, matched to the token."""
        if not self._can_roll_back:
            match = self._index.whole_match(tokens)
            return [] if match is None else [match]
        return [
            replace(match, tokens=self._common_length(match, tokens))
            for match in self._index.longest_matches(tokens)
        ]

    def _common_length(self, match: PrefixMatch, tokens: abc.Sequence[int]) -> int:
        start, end = match.tokens, match.tokens + PREFIX_BLOCK
        state_tokens = self._prefixes[match.entry.name].tokens
        return start + common_prefix_length(state_tokens[start:end], tokens[start:end])

    def _remove(self, name: str) -> None:
        self._index.remove(name)
        self._prefixes.pop(name, None)


def _gain_and_size(match: PrefixMatch) -> tuple[int, int]:
    """Key by which the best match is the maximum: most saved tokens, then the smallest state."""
    return match.tokens - restore_cost(match.entry.tokens), -match.entry.size
