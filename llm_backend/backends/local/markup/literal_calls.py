"""Parser of calls in program syntax, with keyword arguments:

[get_weather(city="Paris", days=2)]                                    Python's literals
call:get_weather{city:<escape>Paris<escape>,days:2}                    Gemma's
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.backends.local.markup.family import CallParser, Tools
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}


def python_calls(*closings: str, is_known_only: bool = False) -> CallParser:
    """Creates a parser of one call or a list of them, and of an optional mark of `closings` after
    it. `is_known_only`: text that names no known function is not a call."""

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        known = tools if is_known_only else None
        yield from reader.skip_space()
        if reader.current == "[":
            yield from reader.advance()
            yield from _read_calls(reader, tools, known, ",")
            yield from reader.expect("]")
        else:
            yield from _read_calls(reader, tools, known, "\n;")
        reader.commit()
        if closings:
            yield from reader.try_one_of(*closings)

    return body


def gemma_calls(quote: str, *closings: str) -> CallParser:
    """Creates a parser of `call:name{key:value,...}` with strings between two `quote`s."""
    style = _LiteralStyle(quotes=(quote,), equals=":", has_escapes=False)

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect("call:")
        name = yield from reader.read_name()
        yield from reader.expect("{")
        yield from _read_arguments(reader, name, style, "}", ())
        yield from reader.try_one_of(*closings)

    return body


@dataclass(frozen=True, kw_only=True)
class _LiteralStyle:
    """Syntax of strings and arguments."""

    quotes: tuple[str, ...]
    equals: str
    has_escapes: bool


_PYTHON = _LiteralStyle(quotes=('"', "'"), equals="=", has_escapes=True)


def _read_calls(
    reader: MarkupReader, tools: Tools, known: Tools | None, between: str
) -> Steps[None]:
    while True:
        yield from reader.skip_space()
        name = yield from reader.read_name()
        reader.is_ambiguous = known is not None and not any(one.startswith(name) for one in known)
        yield from reader.expect("(")
        if name not in tools:
            name = name.removesuffix(".call")  # Llama's notation of its built-in tools
        if known is not None and name not in known:
            raise NoCall
        order = list(tools.get(name, {}).get("properties") or ())
        yield from _read_arguments(reader, name, _PYTHON, ")", order)
        if between == ",":
            yield from reader.skip_space()
        if not reader.current or reader.current not in between:
            return
        yield from reader.advance()
        if between != ",":
            yield from reader.skip_space()
            if not reader.current.isalpha():
                return


def _read_arguments(
    reader: MarkupReader, name: str, style: _LiteralStyle, end: str, order: Sequence[str]
) -> Steps[None]:
    """Reads the arguments up to `end`; positional ones get their names from `order`."""
    reader.begin_call(name)
    reader.add_arguments("{")
    index = 0
    while True:
        yield from reader.skip_space()
        if reader.current == end:
            break
        reader.add_arguments(", " if index else "")
        if reader.current.isalpha() or reader.current == "_":
            key = yield from _read_bare_key(reader)
            yield from reader.skip_space()
            yield from reader.expect(style.equals)
        elif index < len(order):
            key = order[index]
        else:
            raise NoCall
        reader.add_arguments(json.dumps(key, ensure_ascii=False) + ": ")
        reader.commit()
        yield from _read_literal(reader, style)
        index += 1
        yield from reader.skip_space()
        if reader.current == ",":
            yield from reader.advance()
        elif reader.current != end:
            raise NoCall
    yield from reader.expect(end)
    reader.add_arguments("}")
    reader.end_call()
    reader.commit()


def _read_bare_key(reader: MarkupReader) -> Steps[str]:
    key = ""
    while reader.current.isalnum() or (reader.current and reader.current in "_-.$/"):
        key += yield from reader.advance()
    return key


def _read_literal(reader: MarkupReader, style: _LiteralStyle) -> Steps[None]:
    yield from reader.skip_space()
    first = reader.current
    if any(first and quote.startswith(first) for quote in style.quotes):
        yield from _read_string(reader, style)
    elif first == "[":
        yield from _read_collection(reader, style, "]")
    elif first == "{":
        yield from _read_collection(reader, style, "}")
    else:
        word = ""
        while reader.current.isalnum() or (reader.current and reader.current in "+-._"):
            word += yield from reader.advance()
        if not word:
            raise NoCall
        reader.add_arguments(word)


def _read_collection(reader: MarkupReader, style: _LiteralStyle, end: str) -> Steps[None]:
    """Reads a list, or a mapping if `end` is `}`."""
    reader.add_arguments((yield from reader.advance()))
    is_first = True
    while True:
        yield from reader.skip_space()
        if reader.current == end:
            break
        reader.add_arguments("" if is_first else ", ")
        is_first = False
        if end == "}":
            yield from _read_key(reader, style)
            yield from reader.skip_space()
            yield from reader.expect(":")
            reader.add_arguments(": ")
        yield from _read_literal(reader, style)
        yield from reader.skip_space()
        if reader.current == ",":
            yield from reader.advance()
        elif reader.current != end:
            raise NoCall
    reader.add_arguments((yield from reader.advance()))
    reader.commit()


def _read_key(reader: MarkupReader, style: _LiteralStyle) -> Steps[None]:
    if any(reader.current and quote.startswith(reader.current) for quote in style.quotes):
        yield from _read_string(reader, style)
        return
    key = yield from _read_bare_key(reader)
    if not key:
        raise NoCall
    reader.add_arguments(json.dumps(key, ensure_ascii=False))


def _read_string(reader: MarkupReader, style: _LiteralStyle) -> Steps[None]:
    quote = yield from reader.expect_one_of(*style.quotes)
    reader.add_arguments('"')
    reader.commit()
    if not style.has_escapes:
        yield from reader.read_text_until((quote,), lambda text: _add_text(reader, text))
    else:
        half = ""  # a high surrogate, until the next character is known
        while reader.current != quote:
            char = yield from reader.advance()
            text = half + ((yield from _read_escape_sequence(reader)) if char == "\\" else char)
            half = text[-1] if "\ud800" <= text[-1] < "\udc00" else ""
            _add_text(reader, _join_surrogates(text.removesuffix(half)))
            reader.commit()
        _add_text(reader, _join_surrogates(half))
        yield from reader.advance()
    reader.add_arguments('"')
    reader.commit()


def _read_escape_sequence(reader: MarkupReader) -> Steps[str]:
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


def _join_surrogates(text: str) -> str:
    """Returns the text with one character for each pair of surrogates, and a replacement character
    for each other surrogate."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _add_text(reader: MarkupReader, text: str) -> None:
    reader.add_arguments(json.dumps(text, ensure_ascii=False)[1:-1])
