"""What slots hold on its way into files, one at a time, so that a disk is never behind by more than
one.

A slot that something else needs is written if nothing else is; the others when the engine has
rested for a while, and at the end, those used last first. Nobody waits but for the copy in memory.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, wait

from llm_backend.engine.kv_cache.cache import Cache, SlotAllocation, SlotTokens
from llm_backend.engine.kv_cache.prefix_files.blocks import plain_length
from llm_backend.engine.kv_cache.prefix_files.folder import PrefixFolder
from llm_backend.engine.kv_cache.prefix_files.index import Entry
from llm_backend.engine.kv_cache.prefix_files.prefix_file import Prefix
from llm_backend.engine.model import Model
from llm_backend.engine.statistics import Statistics

__all__ = ["LOOKED_S", "PrefixSaver"]

_log = logging.getLogger("llm_backend.engine.kv_cache.prefix_files")

_SETTLED_S = 10.0  # of rest, after which a conversation is likely to pause
LOOKED_S = 0.05  # at rest, whether a file is read or written
_CLOSING_S = 3.0  # for all that is written at the end: who waits for it has not much longer


class PrefixSaver:
    """Writes what is worth it: texts of which many tokens are in no file."""

    def __init__(
        self,
        model: Model,
        cache: Cache,
        folder: PrefixFolder,
        statistics: Statistics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._cache = cache
        self._folder = folder
        self._statistics = statistics
        self._clock = clock
        self._writing: Future[Entry] | None = None
        self._spared: set[str] = (
            set()
        )  # files of what slots hold, as far as was looked at since work
        self._has_room = True  # for what is older than all that is spared
        self._worked_at = 0.0
        self._is_done = True  # nothing is left to be written before somebody works again

    def overwritten(self, placement: SlotAllocation) -> None:
        """Write what is lost by a placement that is about to be made."""
        for held in placement.lost:
            self._keep(held)

    def work(self, now: float) -> None:
        """The engine is at work."""
        self._settle()
        self._worked_at, self._is_done = now, False
        self._spared.clear()
        self._has_room = True

    def rest(self, now: float) -> None:
        """The engine has nothing else to do: write the next one, if it is time."""
        self._settle()
        if self._is_done or self._writing or now - self._worked_at < _SETTLED_S:
            return
        self._is_done = not self._keeps_next()

    def rests_for_s(self, now: float) -> float | None:
        """After how long `rest` has something to do; None for never."""
        if self._writing is not None:
            return LOOKED_S
        return None if self._is_done else max(0.0, self._worked_at + _SETTLED_S - now)

    def close(self) -> None:
        """Write what there is time for."""
        until, self._is_done = self._clock() + _CLOSING_S, False
        self._wait(until)
        while self._writing is None and not self._is_done and self._clock() < until:
            self._is_done = not self._keeps_next()
            self._wait(until)

    def _keeps_next(self) -> bool:
        """Whether one more slot is being written: the one used last of those that are to be. What
        is in a file already makes no room for an older one."""
        return any(self._keep(held) for held in self._cache.held)

    def _keep(self, held: SlotTokens) -> bool:
        """Whether the contents of a slot are being written now."""
        if self._writing is not None or not self._has_room or not self._is_worth(held.tokens):
            return False
        if self._model.end(held.slot) != len(held.tokens):  # some of it is not computed any longer
            return False
        prefix = Prefix(tokens=list(held.tokens), state=self._model.state(held.slot))
        self._writing = self._folder.write(prefix, self._spared)
        self._has_room = self._writing is not None
        return self._has_room

    def _is_worth(self, tokens: list[int]) -> bool:
        least, index = self._folder.least_tokens, self._folder.index
        if len(tokens) < least or plain_length(tokens) < len(tokens):
            return False
        match = index.match(tokens) if self._cache.can_roll_back else index.whole_match(tokens)
        if match is None or len(tokens) - match.tokens >= least:
            return True
        self._spared.add(match.entry.name)
        return False

    def _settle(self) -> None:
        """Learn what has become of the file that was written."""
        if self._writing is None or not self._writing.done():
            return
        writing, self._writing = self._writing, None
        try:
            entry = writing.result()
        except OSError as error:  # no room on the disk: it is tried again after the next work
            _log.warning("engine.prefix_not_written reason=%s", error.strerror)
            self._is_done = True
            return
        self._folder.index.add(entry)
        self._statistics.prefix_writes += 1

    def _wait(self, until: float) -> None:
        if self._writing is not None:
            wait([self._writing], max(0.0, until - self._clock()))
            self._settle()
