"""Streaming parser of a model's text into reasoning, content and tool calls. Pure."""

from collections.abc import Sequence

from llm_backend.backends.local.markup.family import Body, CallMarkup, Markup, Thinking, Tools
from llm_backend.backends.local.markup.parts import CallArguments, Content, Part, Reasoning
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

__all__ = ["MarkupParser"]


class MarkupParser:
    """Parser of one choice's text: `feed` chunks, then `finish`. The merged parts do not depend on
    the chunk boundaries.

    `tools` are the parameter schemas of the functions that may be called, by name; if empty, calls
    are not parsed. `is_thinking`: the prompt has opened the reasoning. Markup that is no valid call
    stays text, unless the text was cut within it. The arguments of an incomplete call are completed
    to valid JSON, unless the text was cut.
    """

    def __init__(
        self,
        markup: Markup,
        tools: Tools | None = None,
        *,
        is_thinking: bool = False,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        self._markup = markup
        self._tools = tools or {}
        self._dropped = tuple(hidden)  # marks that are always removed
        self._reader = MarkupReader(hidden)
        self._steps = self._answer(is_thinking)
        self._is_stopped = False
        next(self._steps)

    @property
    def is_reasoning(self) -> bool:
        """True while the parser is within reasoning."""
        return self._reader.is_reasoning

    def feed(self, text: str) -> list[Part]:
        """Parses a chunk; returns the parts that have become certain."""
        if text:  # an empty string would signal the end
            self._steps.send(text)
        return self._drain()

    def finish(self, *, is_cut: bool = False, is_stopped: bool = False) -> list[Part]:
        """Ends the text; returns the remaining parts. `is_cut`: the text was truncated, so an
        incomplete call stays incomplete, and a partial mark is dropped. `is_stopped`: the same, but
        an incomplete call is completed."""
        self._reader.is_cut = is_cut or is_stopped
        self._is_stopped = is_stopped
        try:
            self._steps.send("")
        except StopIteration:
            return self._drain()
        raise AssertionError("a parser stops at the end of the text")

    def _drain(self) -> list[Part]:
        parts, self._reader.parts = _merge_parts(self._reader.parts), []
        return parts

    def _answer(self, is_thinking: bool) -> Steps[None]:
        reader = self._reader
        reader.is_reasoning = is_thinking
        yield from reader.start()
        if self._markup.messages is not None:
            yield from self._markup.messages(reader, self._attempt, self._tools)
        else:
            if self._markup.thinking is not None:
                yield from self._reasoning(self._markup.thinking, is_thinking)
            yield from self._text(self._markup.calls if self._tools else None)
        reader.finish()

    def _reasoning(self, thinking: Thinking, is_open: bool) -> Steps[None]:
        reader = self._reader
        found = yield from reader.maybe(thinking.opening)
        if not found and not is_open:
            return
        reader.is_reasoning = True
        reader.markup()
        yield from reader.skip_space()
        reader.settle()
        yield from reader.text_until((thinking.closing,), reader.reasoning)
        reader.is_reasoning = False
        if thinking.answer is not None and (yield from reader.maybe(thinking.answer[0])):
            self._dropped = (*self._dropped, thinking.answer[1])
        yield from reader.skip_space()
        reader.settle()

    def _text(self, calls: CallMarkup | None) -> Steps[None]:
        reader = self._reader
        if calls is not None and calls.is_bare:
            yield from self._bare(calls)
        openings = calls.openings if calls is not None else ()
        if calls is not None and calls.is_leading:
            found = yield from reader.maybe(*openings)
            openings = openings if found else ()
            if found:
                yield from self._attempt(calls.body, found)
        while reader.here:
            found = yield from reader.text_until((*openings, *self._dropped), reader.content)
            if calls is not None and found in openings:
                yield from self._attempt(calls.body, found)

    def _bare(self, calls: CallMarkup) -> Steps[None]:
        """Parses calls without a mark, which can only begin the answer."""
        reader = self._reader
        yield from reader.skip_space()
        if reader.here and reader.here in "{[":
            yield from self._attempt(calls.body, "")
        else:
            reader.read_again()

    def _attempt(self, body: Body, opening: str) -> Steps[None]:
        """Parses calls after their opening; invalid ones become text."""
        reader = self._reader
        before = reader.calls
        reader.is_doubtful = False
        try:
            yield from body(reader, opening, self._tools)
        except NoCall:
            if reader.ends_in_call:
                if self._is_stopped:
                    reader.break_call()
                reader.settle()
                return
            reader.break_call()
            if reader.calls == before:
                reader.content(opening)
            reader.read_again()
        else:
            reader.settle()


def _merge_parts(parts: Sequence[Part]) -> list[Part]:
    """Merges adjacent parts of the same kind."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Content | Reasoning | CallArguments) and type(last) is type(part):
            merged[-1] = type(part)(last.text + part.text)
        else:
            merged.append(part)
    return merged
