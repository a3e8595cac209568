"""Splits a model's text into reasoning, content and calls, as it comes. Pure."""

from collections.abc import Sequence

from llm_backend.backends.local.markup.family import Body, CallMarkup, Markup, Thinking, Tools
from llm_backend.backends.local.markup.parts import CallArguments, Content, Part, Reasoning
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

__all__ = ["MarkupParser"]


class MarkupParser:
    """One choice's text: `feed` pieces, then `finish`. The parts that come out are the same however
    the text was cut, but for the cuts between parts of a kind.

    `tools` are the parameters' schemas of the functions that may be called, by name; without any,
    no call is looked for. `is_thinking`: the prompt has opened the reasoning already. Markup that
    never becomes a call stays text, unless the text was cut in it; what is certain of a call that
    breaks off is closed, so that arguments are valid JSON unless the text was cut.
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
        self._dropped = tuple(hidden)  # marks that are not shown wherever they stand
        self._reader = MarkupReader(hidden)
        self._steps = self._answer(is_thinking)
        self._is_stopped = False
        next(self._steps)

    @property
    def is_reasoning(self) -> bool:
        """Whether what comes now is reasoning."""
        return self._reader.is_reasoning

    def feed(self, text: str) -> list[Part]:
        """The parts that these characters make certain."""
        if text:  # none would be the end
            self._steps.send(text)
        return self._drain()

    def finish(self, *, is_cut: bool = False, is_stopped: bool = False) -> list[Part]:
        """The parts that the end makes certain. `is_cut`: the text would have gone on, so a call
        that is not whole stays as it is, and what is not yet a call is not shown. `is_stopped`: the
        same, but a call is closed."""
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
        """Calls without a mark: they can only be the beginning of the answer."""
        reader = self._reader
        yield from reader.skip_space()
        if reader.here and reader.here in "{[":
            yield from self._attempt(calls.body, "")
        else:
            reader.read_again()

    def _attempt(self, body: Body, opening: str) -> Steps[None]:
        """Read calls after their opening; what is none is text."""
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
    """Neighbours of a kind as one."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Content | Reasoning | CallArguments) and type(last) is type(part):
            merged[-1] = type(part)(last.text + part.text)
        else:
            merged.append(part)
    return merged
