"""Restores prefixes from files into slots, one at a time.

A file is read in parallel to the passes, while the sequences that wait for it stay in the waiting
queue. Its cells are put into a free slot, as if a finished sequence had left them there, and the
waiting sequences use them as a cached prefix.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass

from llm_backend.engine.kv_cache.cache import Cache, SlotAllocation, common_prefix
from llm_backend.engine.kv_cache.prefix_files.folder import PrefixFolder, RestoredPrefix
from llm_backend.engine.kv_cache.prefix_files.index import Match
from llm_backend.engine.kv_cache.prefix_files.prefix_file import BadPrefix, file_bytes
from llm_backend.engine.kv_cache.prefix_files.read_costs import ReadingCosts
from llm_backend.engine.kv_cache.slot_cells import SlotCells
from llm_backend.engine.statistics import Statistics

__all__ = ["PrefixRestorer"]

_log = logging.getLogger("llm_backend.engine.kv_cache.prefix_files")
# of a wait for one file: a disk that is so slow may never answer
_PATIENCE_S = 5.0  # longest wait for one file: a disk that is so slow may never answer

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A file that is being read, since `began_at`."""

    name: str
    began_at: float
    recalled: "Future[RestoredPrefix]"


class PrefixRestorer:
    """Reads the files that sequences wait for. `overwritten` is called before a slot is filled;
    `tokens_per_s` returns the prefill speed, as far as it is measured."""

    def __init__(
        self,
        cache: Cache,
        slots: SlotCells,
        folder: PrefixFolder,
        statistics: Statistics,
        *,
        overwritten: Callable[[SlotAllocation], None],
        tokens_per_s: Callable[[], float | None],
        clock: Clock = time.monotonic,
    ) -> None:
        self._cache = cache
        self._slots = slots
        self._folder = folder
        self._statistics = statistics
        self._overwritten = overwritten
        self._tokens_per_s = tokens_per_s
        self._clock = clock
        self._costs = ReadingCosts()
        # by file: the prefix of the sequences that wait for it
        self._wanted: dict[str, list[int]] = {}
        self._reading: _Reading | None = None

    def want(self, tokens: list[int]) -> None:
        """Let a prompt wait for a file that holds a prefix of it, if reading is faster than
        computing."""
        if self._is_stuck():
            return
        match = self._match(tokens)
        if match is None or not self._is_worth(match, tokens):
            return
        name, wanted = match.entry.name, tokens[: match.tokens]
        self._wanted[name] = max(self._wanted.get(name, []), wanted, key=len)
        self._expect()

    def turn(self) -> None:
        """Put a prefix that has been read into a free slot, if there is one, and begin to read
        the next."""
        reading = self._reading
        if reading is not None and reading.recalled.done() and self._cache.free:
            self._reading = None
            self._finish(reading)
        elif self._is_stuck() and self._wanted:
            _log.warning("engine.prefixes_slow file=%s", self._reading and self._reading.name)
            self._wanted.clear()
            self._expect()
        if self._reading is None:
            self._begin()

    def rest(self, seconds: float) -> None:
        """Wait until a file is read, at most `seconds`."""
        if self._reading is not None:
            wait([self._reading.recalled], seconds)

    @property
    def is_reading(self) -> bool:
        """True if a file is being read, or its contents wait for a slot."""
        return self._reading is not None

    def _begin(self) -> None:
        for name, tokens in list(self._wanted.items()):
            if name in self._folder.index and self._gain(tokens) > 0:
                future = self._folder.read(name)
                self._reading = _Reading(name=name, began_at=self._clock(), recalled=future)
                return
            del self._wanted[name]
            self._expect()

    def _finish(self, reading: _Reading) -> None:
        wanted = self._wanted.pop(reading.name, None)
        self._expect()
        try:
            recalled = reading.recalled.result()
        except FileNotFoundError:  # another process has removed it
            self._folder.remove(reading.name)
        except (OSError, BadPrefix) as error:
            _log.warning("engine.prefix_removed reason=%s", error)
            self._folder.remove(reading.name)
        else:
            if wanted is not None:
                self._take_in(reading.name, recalled, wanted)

    def _take_in(self, name: str, recalled: RestoredPrefix, wanted: list[int]) -> None:
        prefix, began_at = recalled.prefix, self._clock()
        shared = common_prefix(prefix.tokens, wanted)
        if not self._cache.can_roll_back and shared < len(prefix.tokens):
            return
        if shared - self._cache.best(wanted) < self._cache.worth_copying:
            return
        placement = self._cache.take_in(prefix.tokens)
        assert placement is not None, "a slot is free"
        self._overwritten(placement)
        if not self._slots.fill(placement, prefix.state, len(prefix.tokens)):
            self._cache.forget(placement.slot)
            _log.warning("engine.prefix_removed reason=the native code has refused it")
            self._folder.remove(name)
            return
        self._costs.measured(file_bytes(prefix), recalled.seconds + self._clock() - began_at)
        self._statistics.prefix_reads += 1
        self._statistics.prefix_read_tokens += shared

    def _match(self, tokens: list[int]) -> Match | None:
        index = self._folder.index
        return index.match(tokens) if self._cache.can_roll_back else index.whole_match(tokens)

    def _is_worth(self, match: Match, tokens: list[int]) -> bool:
        gain = self._gain(tokens[: match.tokens])
        if gain < self._folder.least_tokens:
            return False
        return self._costs.is_worth(match.entry.size, gain, self._tokens_per_s())

    def _gain(self, tokens: list[int]) -> int:
        """Number of tokens of a prefix that are in no slot."""
        return len(tokens) - self._cache.best(tokens)

    def _expect(self) -> None:
        self._cache.expected = tuple(self._wanted.values())

    def _is_stuck(self) -> bool:
        reading = self._reading
        return (
            reading is not None
            and not reading.recalled.done()
            and self._clock() - reading.began_at > _PATIENCE_S
        )
