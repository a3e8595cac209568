"""Tokenizes long texts (of `Tokenize` commands, prompts and questions) in a thread of its own.

The native tokenizer only reads the vocabulary, and runs without the interpreter's lock. Tokenizing
a megabyte takes half a second, in which every stream would stall.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_backend.engine.messages import Generate, ScoreLabels, Tokenize
from llm_backend.engine.messages.address import Address

Result = TypeVar("Result")
LongCommand = Tokenize | Generate | ScoreLabels

_LONG_CHARACTERS = 16 * 1024


def is_long(command: LongCommand) -> bool:
    """True for a command with long texts and no media: media need the projector, which only the
    engine's main thread uses."""
    if isinstance(command, Tokenize):
        return not command.media and len(command.text) > _LONG_CHARACTERS
    if isinstance(command, Generate):
        texts = [command.prompt, command.suffix or "", command.prediction or ""]
        characters = sum(len(text) for text in texts if isinstance(text, str))
        return not command.media and characters > _LONG_CHARACTERS
    if command.media or any(question.media for question in command.questions):
        return False
    questions = (len(one.text) + sum(map(len, one.labels)) for one in command.questions)
    return len(command.prompt) + sum(questions) > _LONG_CHARACTERS


@dataclass(frozen=True, kw_only=True)
class PendingTokens(Generic[Result]):
    """A command that arrived at `arrived_at` (monotonic seconds), and the future of its tokens."""

    address: Address
    command: LongCommand
    arrived_at: float
    future: Future[Result]


class TokenizerThread(Generic[Result]):
    """Thread that tokenizes commands with `tokenize`, one at a time."""

    def __init__(self, tokenize: Callable[[LongCommand], Result]) -> None:
        self._tokenize = tokenize
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._pending: dict[Address, PendingTokens[Result]] = {}

    @property
    def is_idle(self) -> bool:
        """True if there is nothing to tokenize, and no result to take."""
        return not self._pending

    @property
    def pending(self) -> list[LongCommand]:
        """The commands whose results were not taken yet."""
        return [one.command for one in self._pending.values()]

    def submit(self, address: Address, command: LongCommand) -> None:
        """Tokenizes the texts of a command later."""
        self._pending[address] = PendingTokens(
            address=address,
            command=command,
            arrived_at=time.monotonic(),
            future=self._thread.submit(self._tokenize, command),
        )

    def cancel(self, address: Address) -> None:
        """Drops a command and its tokens; tokenization that has begun runs to its end."""
        pending = self._pending.pop(address, None)
        if pending is not None:
            pending.future.cancel()

    def cancel_connection(self, connection: int) -> None:
        """Drops the commands of a closed connection."""
        for address in [one for one in self._pending if one.connection == connection]:
            self.cancel(address)

    def pop_done(self) -> PendingTokens[Result] | None:
        """Removes a tokenized command and returns it; None if there is none."""
        for address, pending in self._pending.items():
            if pending.future.done():
                return self._pending.pop(address)
        return None

    def wait(self, timeout_s: float) -> None:
        """Waits until a command is tokenized, at most this long."""
        futures = [one.future for one in self._pending.values()]
        wait(futures, timeout_s, return_when="FIRST_COMPLETED")

    def close(self) -> None:
        """Ends the thread once its current text is tokenized."""
        self._thread.shutdown(wait=False, cancel_futures=True)
