"""Tokenizes long texts in a thread, beside the passes.

The native tokenizer only reads the vocabulary, and runs without the interpreter's lock. A pass
takes milliseconds and a text of a megabyte half a second, for which all streams would stop.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from llm_backend.engine.messages import Tokenize, Tokenized
from llm_backend.engine.messages.address import Address

_LONG_CHARACTERS = 16 * 1024


class TokenizerThread:
    """Long texts that are being tokenized, one after the other."""

    def __init__(self, tokenize: Callable[[Tokenize], Tokenized]) -> None:
        self._tokenize = tokenize
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._pending: dict[Address, Future[Tokenized]] = {}

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to tokenize, and no result to take."""
        return not self._pending

    def accepts(self, command: Tokenize) -> bool:
        """Returns True for a long text. One with media is not accepted: the passes use the
        projector, too."""
        return len(command.text) > _LONG_CHARACTERS and not command.media

    def submit(self, address: Address, command: Tokenize) -> None:
        """Tokenizes a text later."""
        self._pending[address] = self._thread.submit(self._tokenize, command)

    def cancel(self, address: Address) -> None:
        """Forgets a text; one that is being tokenized is tokenized to its end."""
        pending = self._pending.pop(address, None)
        if pending is not None:
            pending.cancel()

    def abandon(self, connection: int) -> None:
        """Forgets the texts of a closed connection."""
        for address in [one for one in self._pending if one.connection == connection]:
            self.cancel(address)

    def pop_done(self) -> tuple[Address, "Future[Tokenized]"] | None:
        """Returns and forgets a text that is tokenized; None if there is none."""
        for address, pending in self._pending.items():
            if pending.done():
                return address, self._pending.pop(address)
        return None

    def wait(self, timeout_s: float) -> None:
        """Waits until a text is tokenized, at most this long."""
        wait(self._pending.values(), timeout_s, return_when="FIRST_COMPLETED")

    def close(self) -> None:
        """Ends the thread after the text that it is at."""
        self._thread.shutdown(wait=False, cancel_futures=True)
