"""Streaming reader for markup parsers, which are generators, and the parts that they emit.

A parser requests characters with `yield from`, one at a time, so that its result does not depend on
chunk boundaries. It looks at `reader.here`, consumes it with `advance`, and raises `NoCall` for
unexpected text. Then the reader backtracks to the last `settle`, and that text is read again as
content. In plain text and in strings many characters are consumed at once.
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.backends.local.markup.json_text import JsonText
from llm_backend.backends.local.markup.parts import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Part,
    Reasoning,
)

__all__ = ["MarkupReader", "NoCall", "Steps"]

T = TypeVar("T")
Steps = Generator[None, str, T]

_SPACE = " \t\r\n"


class NoCall(Exception):
    """The text began like a call but is none."""


class MarkupReader:
    """Cursor over a streamed text (`here`: the next character, empty at the end), and the parts
    emitted so far.

    `hidden` are markers that must never be shown: control tokens of the model.
    """

    def __init__(self, hidden: frozenset[str] = frozenset()) -> None:
        self.here = ""
        self.parts: list[Part] = []
        self.calls = 0  # begun so far
        self.is_cut = False  # the text was truncated
        self.is_doubtful = False  # the text may still be either content or a call
        self._hidden = sorted(hidden, key=len, reverse=True)
        self._taken: list[str] = []
        self._text = ""  # received text that is not consumed before `_at`, the index of `here`
        self._at = 0
        self._is_over = False
        self._call: JsonText | None = None
        self._space: list[str] | None = []  # white space that is emitted only if text follows it
        self._thought_space: list[str] = []
        self._has_markup = False
        self.is_reasoning = False

    # reading

    def start(self) -> Steps[None]:
        """Waits for the first character."""
        yield from self._move()

    def advance(self) -> Steps[str]:
        """Consumes the character under the cursor and returns it."""
        char = self.here
        if not char:
            raise NoCall
        self._taken.append(char)
        yield from self._move()
        return char

    def settle(self, *, keep: int = 0) -> None:
        """Commits the consumed text except its last `keep` characters: no backtracking before
        that."""
        if keep < len(self._taken):
            del self._taken[: len(self._taken) - keep]

    def read_again(self) -> None:
        """Backtracks to the last committed position."""
        self._text = "".join(self._taken) + self._text[self._at :]
        self._at, self._taken = 0, []
        self.here = self._text[:1]

    def skip_space(self) -> Steps[None]:
        """Consumes white space."""
        while self.here and self.here in _SPACE:
            yield from self.advance()

    def maybe(self, *texts: str) -> Steps[str]:
        """Consumes white space and one of `texts` and returns it; otherwise backtracks and returns
        an empty string. The text before must be settled."""
        try:
            yield from self.skip_space()
            found = yield from self.one_of(*texts)
        except NoCall:
            if self.is_cut and not self.here and _shows_markup("".join(self._taken)):
                self.settle()
            else:
                self.read_again()
            return ""
        self.settle()
        return found

    def text_until(self, marks: Sequence[str], write: Callable[[str], None]) -> Steps[str]:
        """Consumes text up to one of these marks, which is returned, or up to the end. `write` gets
        text as soon as it cannot be part of a mark, and no part of a truncated mark. The text
        before must be settled."""
        held = ""
        plain = _plain(tuple(marks))
        while self.here:
            if not held and (run := plain.match(self._text, self._at)):
                write(run[0])
                self._at = run.end() - 1
                yield from self._move()
                continue
            held += self.here
            mark = next((mark for mark in marks if held.endswith(mark)), "")
            certain = len(held) - (len(mark) or max((_overlap(held, m) for m in marks), default=0))
            if certain:
                write(held[:certain])
            held = held[certain:]
            yield from self.advance()
            self.settle(keep=len(held))
            if mark:
                self.settle()
                return mark
        if not (self.is_cut and _shows_markup(held)):
            write(held)
        self.settle()
        return ""

    def _move(self) -> Steps[None]:
        self._at += 1
        if self._at >= len(self._text) and not self._is_over:
            self._text, self._at = (yield), 0
            self._is_over = not self._text
        self.here = self._text[self._at : self._at + 1]

    def expect(self, text: str) -> Steps[None]:
        """Consumes exactly this text. Raises `NoCall`."""
        for char in text:
            if self.here != char:
                raise NoCall
            yield from self.advance()

    def one_of(self, *texts: str) -> Steps[str]:
        """Consumes one of `texts` (none is a prefix of another) and returns it. Raises `NoCall`."""
        read = ""
        while read not in texts:
            if not any(text.startswith(read + self.here) for text in texts):
                raise NoCall
            read += yield from self.advance()
        return read

    def name(self) -> Steps[str]:
        """Consumes the name of a function or an argument and returns it. Raises `NoCall`."""
        name = ""
        while self.here.isalnum() or (self.here and self.here in "_-.:/$"):
            name += yield from self.advance()
            if len(name) > FUNCTION_NAME_LENGTH:
                raise NoCall
        if not name:
            raise NoCall
        return name

    # writing

    def content(self, text: str) -> None:
        """Emits content. White space before the first word is held until there is one: next to
        markup it is dropped."""
        for marker in self._hidden:
            text = text.replace(marker, "")
        if self._space is not None:
            if not text.strip(_SPACE):
                self._space += [text] if text else []
                return
            text = "".join([*self._space, text])
            self._space = None
        if text:
            self.parts.append(Content(text))

    def reasoning(self, text: str) -> None:
        """Emits reasoning, without white space at its end."""
        kept = text.rstrip(_SPACE)
        if kept:
            self.parts.append(Reasoning("".join([*self._thought_space, kept])))
            self._thought_space = []
        self._thought_space.append(text[len(kept) :])

    def markup(self) -> None:
        """Records markup: drops held white space."""
        self._has_markup = True
        self._space = []

    def finish(self) -> None:
        """Ends the text; emits held white space if the whole answer is white space."""
        if not self._has_markup and self._space:
            self.parts.append(Content("".join(self._space)))

    def begin_call(self, name: str) -> None:
        """Begins a call, which is certain from here on."""
        self.markup()
        self.settle()
        self.calls += 1
        self._call = JsonText()
        self.is_doubtful = False
        self.parts.append(CallBegin(name))

    def argue(self, text: str) -> None:
        """Adds text to the arguments' JSON. Raises `NoCall` for invalid JSON."""
        assert self._call is not None, "arguments belong to a call"
        if not all(self._call.take(char) for char in text):
            raise NoCall
        if certain := self._call.drain():
            self.parts.append(CallArguments(certain))

    def argue_here(self) -> Steps[None]:
        """Consumes a JSON value as the arguments; its end ends the call."""
        assert self._call is not None, "arguments belong to a call"
        call = self._call
        while not call.is_complete:
            if not self.here:
                raise NoCall
            if end := call.take_run(self._text, self._at):
                self.parts.append(CallArguments(call.drain()))
                self._at = end - 1
                yield from self._move()
                continue
            self.argue(self.here)
            if call.is_complete:
                self.end_call()
            yield from self.advance()
            self.settle(keep=len(call.held))

    def end_call(self) -> None:
        """Ends the call, whose arguments are complete."""
        assert self._call is not None, "only a call that began can end"
        assert self._call.is_complete, "the arguments are whole JSON"
        self._call = None
        self._space = []
        self.parts.append(CallEnd())

    @property
    def ends_in_call(self) -> bool:
        """True if the text was truncated within a certain call."""
        return self.is_cut and not self.here and not self.is_doubtful

    def break_call(self) -> None:
        """Ends an invalid call; completes its arguments to valid JSON."""
        if self._call is None:
            return
        self._call.end_scalar()
        self.settle(keep=len(self._call.held))
        self.parts.append(CallArguments(self._call.drain() + self._call.closing()))
        self._call = None
        self.parts.append(CallEnd())


@lru_cache(maxsize=256)
def _plain(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Returns a pattern of text in which none of these marks can begin."""
    firsts = re.escape("".join(mark[0] for mark in marks))
    return re.compile(f"[^{firsts}]+" if firsts else r"(?s:.+)")


def _overlap(text: str, mark: str) -> int:
    """Returns the length of the longest suffix of `text` that is a prefix of `mark`."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return length
    return 0


def _shows_markup(text: str) -> bool:
    """Returns True if the text is a beginning of a mark, not of a word: letters may be text."""
    return any(not (char.isalnum() or char.isspace()) for char in text)
