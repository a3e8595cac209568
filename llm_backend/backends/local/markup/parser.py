"""Streaming tool parser and reasoning parser: splits a model's text into reasoning, content and
tool calls. Pure."""

from collections.abc import Sequence

from llm_backend.backends.local.markup.family import CallMarkup, CallParser, Markup, Thinking, Tools
from llm_backend.backends.local.markup.parts import CallArguments, Content, Part, Reasoning
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps


class MarkupParser:
    """Parser of one choice's text: call `feed` for each chunk, then `finish`. The parts, merged, do
    not depend on the chunk boundaries.

    `tools` are the parameter schemas of the functions that may be called, by name; if empty, calls
    are not parsed. `is_thinking`: the prompt has opened the reasoning. Markup without a valid call
    stays text. The arguments of a call that the model left incomplete are completed to valid JSON;
    `finish` says what holds for a text that was cut.
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
        self._dropped_marks = tuple(hidden)
        self._reader = MarkupReader(hidden)
        self._steps = self._parse_answer(is_thinking)
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

    def _parse_answer(self, is_thinking: bool) -> Steps[None]:
        reader = self._reader
        reader.is_reasoning = is_thinking
        yield from reader.start()
        if self._markup.messages is not None:
            yield from self._markup.messages(reader, self._try_calls, self._tools)
        else:
            if self._markup.thinking is not None:
                yield from self._parse_reasoning(self._markup.thinking, is_thinking)
            yield from self._parse_text(self._markup.calls if self._tools else None)
        reader.finish()

    def _parse_reasoning(self, thinking: Thinking, is_open: bool) -> Steps[None]:
        reader = self._reader
        found = yield from reader.try_one_of(thinking.opening)
        if not found and not is_open:
            return
        reader.is_reasoning = True
        reader.begin_markup()
        yield from reader.skip_space()
        reader.commit()
        yield from reader.read_text_until((thinking.closing,), reader.emit_reasoning)
        reader.is_reasoning = False
        if thinking.answer is not None and (yield from reader.try_one_of(thinking.answer[0])):
            self._dropped_marks = (*self._dropped_marks, thinking.answer[1])
        yield from reader.skip_space()
        reader.commit()

    def _parse_text(self, calls: CallMarkup | None) -> Steps[None]:
        reader = self._reader
        if calls is not None and calls.is_bare:
            yield from self._parse_bare_calls(calls)
        openings = calls.openings if calls is not None else ()
        if calls is not None and calls.is_leading:
            found = yield from reader.try_one_of(*openings)
            openings = openings if found else ()
            if found:
                yield from self._try_calls(calls.parser, found)
        while reader.current:
            found = yield from reader.read_text_until(
                (*openings, *self._dropped_marks), reader.emit_content
            )
            if calls is not None and found in openings:
                yield from self._try_calls(calls.parser, found)

    def _parse_bare_calls(self, calls: CallMarkup) -> Steps[None]:
        """Parses calls without a mark, which can only begin the answer."""
        reader = self._reader
        yield from reader.skip_space()
        if reader.current and reader.current in "{[":
            yield from self._try_calls(calls.parser, "")
        else:
            reader.backtrack()

    def _try_calls(self, parser: CallParser, opening: str) -> Steps[None]:
        """Parses calls after their opening; invalid ones become text."""
        reader = self._reader
        before = reader.call_count
        reader.is_ambiguous = False
        try:
            yield from parser(reader, opening, self._tools)
        except NoCall:
            if reader.is_cut_in_call:
                if self._is_stopped:
                    reader.complete_call()
                reader.commit()
                return
            reader.complete_call()
            if reader.call_count == before:
                reader.emit_content(opening)
            reader.backtrack()
        else:
            reader.commit()


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
