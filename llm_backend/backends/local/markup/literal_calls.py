"""Parser of calls in program syntax, with keyword arguments:

[get_weather(city="Paris", days=2)]                                    Python's literals
call:get_weather{city:<escape>Paris<escape>,days:2}                    Gemma's
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.backends.local.markup.family import Body, Tools
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

__all__ = ["gemma_calls", "python_calls"]

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}


def python_calls(*closings: str, is_known_only: bool = False) -> Body:
    """Creates a parser of one call or a list of them, up to one of `closings` if one comes."""

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        known = tools if is_known_only else None
        yield from reader.skip_space()
        if reader.here == "[":
            yield from reader.advance()
            yield from _calls(reader, tools, known, ",")
            yield from reader.expect("]")
        else:
            yield from _calls(reader, tools, known, "\n;")
        reader.settle()
        if closings:
            yield from reader.maybe(*closings)

    return body


def gemma_calls(quote: str, *closings: str) -> Body:
    """Creates a parser of `call:name{key:value,...}` with strings between two `quote`s."""
    style = _Style(quotes=(quote,), equals=":", has_escapes=False)

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect("call:")
        name = yield from reader.name()
        yield from reader.expect("{")
        yield from _arguments(reader, name, style, "}", ())
        yield from reader.maybe(*closings)

    return body


@dataclass(frozen=True, kw_only=True)
class _Style:
    """Syntax of strings and arguments."""

    quotes: tuple[str, ...]
    equals: str
    has_escapes: bool


_PYTHON = _Style(quotes=('"', "'"), equals="=", has_escapes=True)


def _calls(reader: MarkupReader, tools: Tools, known: Tools | None, between: str) -> Steps[None]:
    while True:
        yield from reader.skip_space()
        name = yield from reader.name()
        reader.is_doubtful = known is not None and not any(one.startswith(name) for one in known)
        yield from reader.expect("(")
        if name not in tools:
            name = name.removesuffix(".call")  # Llama's notation of its built-in tools
        if known is not None and name not in known:
            raise NoCall
        order = list(tools.get(name, {}).get("properties") or ())
        yield from _arguments(reader, name, _PYTHON, ")", order)
        if between == ",":
            yield from reader.skip_space()
        if not reader.here or reader.here not in between:
            return
        yield from reader.advance()
        if between != ",":
            yield from reader.skip_space()
            if not reader.here.isalpha():
                return


def _arguments(
    reader: MarkupReader, name: str, style: _Style, end: str, order: Sequence[str]
) -> Steps[None]:
    """Reads the arguments up to `end`; positional ones get their names from `order`."""
    reader.begin_call(name)
    reader.argue("{")
    place = 0
    while True:
        yield from reader.skip_space()
        if reader.here == end:
            break
        reader.argue(", " if place else "")
        if reader.here.isalpha() or reader.here == "_":
            key = yield from _bare_key(reader)
            yield from reader.skip_space()
            yield from reader.expect(style.equals)
        elif place < len(order):
            key = order[place]
        else:
            raise NoCall
        reader.argue(json.dumps(key, ensure_ascii=False) + ": ")
        reader.settle()
        yield from _literal(reader, style)
        place += 1
        yield from reader.skip_space()
        if reader.here == ",":
            yield from reader.advance()
        elif reader.here != end:
            raise NoCall
    yield from reader.expect(end)
    reader.argue("}")
    reader.end_call()
    reader.settle()


def _bare_key(reader: MarkupReader) -> Steps[str]:
    key = ""
    while reader.here.isalnum() or (reader.here and reader.here in "_-.$/"):
        key += yield from reader.advance()
    return key


def _literal(reader: MarkupReader, style: _Style) -> Steps[None]:
    yield from reader.skip_space()
    first = reader.here
    if any(first and quote.startswith(first) for quote in style.quotes):
        yield from _string(reader, style)
    elif first == "[":
        yield from _many(reader, style, "]")
    elif first == "{":
        yield from _many(reader, style, "}")
    else:
        word = ""
        while reader.here.isalnum() or (reader.here and reader.here in "+-._"):
            word += yield from reader.advance()
        reader.argue(word or "?")


def _many(reader: MarkupReader, style: _Style, end: str) -> Steps[None]:
    """Reads a list, or a mapping if `end` is `}`."""
    reader.argue((yield from reader.advance()))
    is_first = True
    while True:
        yield from reader.skip_space()
        if reader.here == end:
            break
        reader.argue("" if is_first else ", ")
        is_first = False
        if end == "}":
            yield from _key(reader, style)
            yield from reader.skip_space()
            yield from reader.expect(":")
            reader.argue(": ")
        yield from _literal(reader, style)
        yield from reader.skip_space()
        if reader.here == ",":
            yield from reader.advance()
        elif reader.here != end:
            raise NoCall
    reader.argue((yield from reader.advance()))
    reader.settle()


def _key(reader: MarkupReader, style: _Style) -> Steps[None]:
    if any(reader.here and quote.startswith(reader.here) for quote in style.quotes):
        yield from _string(reader, style)
        return
    key = yield from _bare_key(reader)
    if not key:
        raise NoCall
    reader.argue(json.dumps(key, ensure_ascii=False))


def _string(reader: MarkupReader, style: _Style) -> Steps[None]:
    quote = yield from reader.one_of(*style.quotes)
    reader.argue('"')
    reader.settle()
    if not style.has_escapes:
        yield from reader.text_until((quote,), lambda text: _text(reader, text))
    else:
        while reader.here != quote:
            char = yield from reader.advance()
            _text(reader, (yield from _escape_sequence(reader)) if char == "\\" else char)
            reader.settle()
        yield from reader.advance()
    reader.argue('"')
    reader.settle()


def _escape_sequence(reader: MarkupReader) -> Steps[str]:
    char = yield from reader.advance()
    digits = {"x": 2, "u": 4}.get(char)
    if digits is None:
        return _ESCAPES.get(char, char if char in "\\'\"\n" else "\\" + char)
    code = ""
    while len(code) < digits:
        code += yield from reader.advance()
    try:
        return chr(int(code, 16))
    except ValueError as error:
        raise NoCall from error


def _text(reader: MarkupReader, text: str) -> None:
    reader.argue(json.dumps(text, ensure_ascii=False)[1:-1])
