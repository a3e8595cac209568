"""Reader of streamed text for markup parsers, which are generators; collects what they emit.

A parser consumes characters with `yield from`, one at a time, so that its result does not depend on
chunk boundaries. It looks at `reader.current`, consumes it with `advance`, and raises `NoCall` for
unexpected text. Then the reader backtracks to the last `commit`, and that text is read again as
content. Plain text and strings are consumed in runs of many characters.
"""

import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeVar

from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.backends.local.markup.json_text import SPACE, JsonText
from llm_backend.backends.local.markup.parts import (
    CallArguments,
    CallBegin,
    CallEnd,
    Content,
    Part,
    Reasoning,
)
from llm_backend.engine.output.text_stream import overlap

T = TypeVar("T")
Steps = Generator[None, str, T]


class NoCall(Exception):
    """The text began like a call but is not a call."""


class MarkupReader:
    """Cursor over a streamed text (`current`: the next character, empty at the end), and the parts
    emitted so far.

    `hidden` are markers that are never emitted: control tokens of the model.
    """

    def __init__(self, hidden: frozenset[str] = frozenset()) -> None:
        self.current = ""
        self.parts: list[Part] = []
        self.call_count = 0  # calls begun
        self.is_cut = False  # the text was truncated
        self.is_ambiguous = False  # the text may still be either content or a call
        self._hidden = sorted(hidden, key=len, reverse=True)
        self._consumed: list[str] = []
        self._text = ""  # received text that may be unread; `current` is at `_index`
        self._index = 0
        self._is_ended = False
        self._call: JsonText | None = None
        self._space: list[str] | None = []  # white space that is emitted only if text follows it
        self._reasoning_space: list[str] = []
        self._has_markup = False
        self.is_reasoning = False

    # reading

    def start(self) -> Steps[None]:
        """Waits for the first character."""
        yield from self._advance()

    def advance(self) -> Steps[str]:
        """Consumes the character under the cursor and returns it."""
        char = self.current
        if not char:
            raise NoCall
        self._consumed.append(char)
        yield from self._advance()
        return char

    def commit(self, *, keep: int = 0) -> None:
        """Commits the consumed text except its last `keep` characters: backtracking ends there."""
        del self._consumed[: max(0, len(self._consumed) - keep)]

    def backtrack(self) -> None:
        """Backtracks to the last committed position."""
        self._text = "".join(self._consumed) + self._text[self._index :]
        self._index, self._consumed = 0, []
        self.current = self._text[:1]

    def skip_space(self) -> Steps[None]:
        """Consumes white space."""
        while self.current and self.current in SPACE:
            yield from self.advance()

    def try_one_of(self, *texts: str) -> Steps[str]:
        """Consumes white space and one of `texts`, and returns that one; otherwise backtracks and
        returns an empty string. The text before must be committed."""
        try:
            yield from self.skip_space()
            found = yield from self.expect_one_of(*texts)
        except NoCall:
            if self.is_cut and not self.current and _looks_like_markup("".join(self._consumed)):
                self.commit()
            else:
                self.backtrack()
            return ""
        self.commit()
        return found

    def read_text_until(self, marks: Sequence[str], emit: Callable[[str], None]) -> Steps[str]:
        """Consumes text and one of `marks` after it, and returns the mark; empty at the end. `emit`
        gets the text as soon as it cannot be part of a mark; a mark that is cut off is dropped. The
        text before must be committed."""
        pending = ""
        plain = _plain(tuple(marks))
        while self.current:
            if not pending and (run := plain.match(self._text, self._index)):
                emit(run[0])
                self._index = run.end() - 1
                yield from self._advance()
                continue
            pending += self.current
            mark = next((mark for mark in marks if pending.endswith(mark)), "")
            certain = len(pending) - (
                len(mark) or max((overlap(pending, m) for m in marks), default=0)
            )
            if certain:
                emit(pending[:certain])
            pending = pending[certain:]
            yield from self.advance()
            self.commit(keep=len(pending))
            if mark:
                self.commit()
                return mark
        if not (self.is_cut and _looks_like_markup(pending)):
            emit(pending)
        self.commit()
        return ""

    def _advance(self) -> Steps[None]:
        self._index += 1
        if self._index >= len(self._text) and not self._is_ended:
            self._text, self._index = (yield), 0
            self._is_ended = not self._text
        self.current = self._text[self._index : self._index + 1]

    def expect(self, text: str) -> Steps[None]:
        """Consumes exactly this text. Raises `NoCall`."""
        for char in text:
            if self.current != char:
                raise NoCall
            yield from self.advance()

    def expect_one_of(self, *texts: str) -> Steps[str]:
        """Consumes one of `texts` (none is a prefix of another) and returns it. Raises `NoCall`."""
        read = ""
        while read not in texts:
            if not any(text.startswith(read + self.current) for text in texts):
                raise NoCall
            read += yield from self.advance()
        return read

    def read_name(self) -> Steps[str]:
        """Consumes the name of a function or an argument and returns it. Raises `NoCall`."""
        name = ""
        while self.current.isalnum() or (self.current and self.current in "_-.:/$"):
            name += yield from self.advance()
            if len(name) > FUNCTION_NAME_LENGTH:
                raise NoCall
        if not name:
            raise NoCall
        return name

    # writing

    def emit_content(self, text: str) -> None:
        """Emits content. White space at the start or after markup is pending until text follows it;
        before markup it is dropped."""
        for marker in self._hidden:
            text = text.replace(marker, "")
        if self._space is not None:
            if not text.strip(SPACE):
                self._space += [text] if text else []
                return
            text = "".join([*self._space, text])
            self._space = None
        if text:
            self.parts.append(Content(text))

    def emit_reasoning(self, text: str) -> None:
        """Emits reasoning; white space is pending until text follows it."""
        stripped = text.rstrip(SPACE)
        if stripped:
            self.parts.append(Reasoning("".join([*self._reasoning_space, stripped])))
            self._reasoning_space = []
        self._reasoning_space.append(text[len(stripped) :])

    def begin_markup(self) -> None:
        """Drops pending white space before markup."""
        self._has_markup = True
        self._space = []

    def finish(self) -> None:
        """Ends the text; emits pending white space if the whole answer is white space."""
        if not self._has_markup and self._space:
            self.parts.append(Content("".join(self._space)))

    def begin_call(self, name: str) -> None:
        """Begins a call and commits: from here on the text cannot be content."""
        self.begin_markup()
        self.commit()
        self.call_count += 1
        self._call = JsonText()
        self.is_ambiguous = False
        self.parts.append(CallBegin(name))

    def add_arguments(self, text: str) -> None:
        """Adds text to the arguments' JSON. Raises `NoCall` for invalid JSON."""
        assert self._call is not None, "arguments belong to a call"
        if not all(self._call.feed(char) for char in text):
            raise NoCall
        if certain := self._call.drain():
            self.parts.append(CallArguments(certain))

    def copy_arguments(self) -> Steps[None]:
        """Consumes a JSON value as the arguments; its end ends the call."""
        assert self._call is not None, "arguments belong to a call"
        call = self._call
        while not call.is_complete:
            if not self.current:
                raise NoCall
            if end := call.feed_run(self._text, self._index):
                self.parts.append(CallArguments(call.drain()))
                self._index = end - 1
                yield from self._advance()
                continue
            self.add_arguments(self.current)
            if call.is_complete:
                self.end_call()
            yield from self.advance()
            self.commit(keep=len(call.pending))

    def end_call(self) -> None:
        """Ends the call, whose arguments are complete."""
        assert self._call is not None, "only a call that began can end"
        assert self._call.is_complete, "the arguments are whole JSON"
        self._call = None
        self._space = []
        self.parts.append(CallEnd())

    @property
    def is_cut_in_call(self) -> bool:
        """True if the text was truncated within a certain call."""
        return self.is_cut and not self.current and not self.is_ambiguous

    def complete_call(self) -> None:
        """Ends an invalid or truncated call by completing its arguments to valid JSON."""
        if self._call is None:
            return
        self._call.end_scalar()
        self.commit(keep=len(self._call.pending))
        self.parts.append(CallArguments(self._call.drain() + self._call.completion()))
        self._call = None
        self.parts.append(CallEnd())


@lru_cache(maxsize=256)
def _plain(marks: tuple[str, ...]) -> re.Pattern[str]:
    """Returns a pattern of text in which none of these marks can begin."""
    firsts = re.escape("".join(mark[0] for mark in marks))
    return re.compile(f"[^{firsts}]+" if firsts else r"(?s:.+)")


def _looks_like_markup(text: str) -> bool:
    """Returns True for text that probably begins a mark: with more than letters, digits and
    space."""
    return any(not (char.isalnum() or char.isspace()) for char in text)
