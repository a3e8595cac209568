"""Parser of calls in program syntax, with keyword arguments:

[get_weather(city="Paris", days=2)]                                    Python's literals
call:get_weather{city:<escape>Paris<escape>,days:2}                    Gemma's
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.backends.local.markup.family import CallParser, Tools
from llm_backend.backends.local.markup.json_text import JsonText, normalize_json
from llm_backend.backends.local.markup.python_strings import Write, read_python_string, write_text
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

_PREFIX_LETTERS = "bBrRuU"  # before the quote of a string
_PREFIXES = ("b", "br", "r", "rb", "u")
_JSON_QUOTE = '"'
_VALUE_STARTS = "\"'[{(+-.0123456789"  # no name of an argument begins so
_NAME_ENDS = "=:,()[]{}\"'\n"
_DEPTH = 64  # deeper nesting is rejected


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
    """Creates a parser of `call:name{key:value,...}` with strings between two `quote`s, or as in
    JSON, which a grammar writes within other values."""
    style = _LiteralStyle(quotes=(quote, _JSON_QUOTE), equals=":", has_escapes=False)

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
    """Reads the arguments up to `end`; positional ones get their names from `order`. Of those with
    the same name the first one counts."""
    reader.begin_call(name)
    reader.add_arguments("{")
    index = 0
    keys: set[str] = set()
    while True:
        yield from reader.skip_space()
        if reader.current == end:
            break
        if reader.current and reader.current not in _VALUE_STARTS:
            key = yield from _read_bare_key(reader)
            yield from reader.expect(style.equals)
        elif index < len(order):
            key = order[index]
        else:
            raise NoCall
        write: Write = reader.add_arguments if key not in keys else lambda text: None
        write((", " if keys else "") + json.dumps(key, ensure_ascii=False) + ": ")
        keys.add(key)
        reader.commit()
        yield from _read_literal(reader, style, write)
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
    """Reads a name without quotes, in which spaces may be, and white space after it."""
    key = ""
    while reader.current and reader.current not in _NAME_ENDS:
        key += yield from reader.advance()
    yield from reader.skip_space()
    if not (key := key.rstrip()):
        raise NoCall
    return key


def _read_literal(
    reader: MarkupReader, style: _LiteralStyle, write: Write, depth: int = 0
) -> Steps[None]:
    if depth > _DEPTH:
        raise NoCall
    yield from reader.skip_space()
    first = reader.current
    if any(first and quote.startswith(first) for quote in style.quotes):
        yield from _read_string(reader, style, write)
    elif first == "[":
        write((yield from reader.advance()))
        yield from _read_items(reader, style, write, "]", depth)
    elif first == "{":
        write((yield from reader.advance()))
        yield from _read_items(reader, style, write, "}", depth)
    elif first == "(":
        yield from _read_parenthesis(reader, style, write, depth)
    else:
        yield from _read_word(reader, style, write)


def _read_word(reader: MarkupReader, style: _LiteralStyle, write: Write) -> Steps[None]:
    """Reads a number or a constant, or a string if the word is its prefix."""
    word = ""
    while reader.current.isalnum() or (reader.current and reader.current in "+-._"):
        word += yield from reader.advance()
    if not word:
        raise NoCall
    if style.has_escapes and reader.current in style.quotes and word.lower() in _PREFIXES:
        yield from _read_string(reader, style, write, is_raw="r" in word.lower())
        return
    value = normalize_json(word) or _number(word)
    if not value:
        raise _no_call_from(reader, word)
    write(value)


def _no_call_from(reader: MarkupReader, text: str) -> NoCall:
    """Backtracks to the start of the text just consumed, unless the answer was cut in it."""
    if reader.current or not reader.is_cut:
        reader.commit(keep=len(text))
        reader.backtrack()
    return NoCall()


def _number(word: str) -> str:
    """Returns the JSON of a number that only Python writes so; empty if the word is none."""
    is_fraction = "." in word or ("e" in word.lower() and "x" not in word.lower())
    try:
        value = float(word) if is_fraction else int(word, 0)
        return json.dumps(value, allow_nan=False) if word.isascii() else ""
    except ValueError:
        return ""


def _read_parenthesis(
    reader: MarkupReader, style: _LiteralStyle, write: Write, depth: int
) -> Steps[None]:
    """Reads a tuple, which becomes a list, or a value in parentheses. Which of them it is, the text
    after the first value says."""
    yield from reader.advance()
    yield from reader.skip_space()
    first: list[str] = []
    if reader.current != ")":
        yield from _read_literal(reader, style, first.append, depth + 1)
        yield from reader.skip_space()
        if reader.current == ")":
            write("".join(first))
            yield from reader.advance()
            return
        yield from reader.expect(",")
    write("[" + "".join(first))
    yield from _read_items(reader, style, write, ")", depth, is_first=not first)


def _read_items(
    reader: MarkupReader,
    style: _LiteralStyle,
    write: Write,
    end: str,
    depth: int,
    *,
    is_first: bool = True,
) -> Steps[None]:
    """Reads the rest of a list, or of a mapping if `end` is `}`."""
    while True:
        yield from reader.skip_space()
        if reader.current == end:
            break
        write("" if is_first else ", ")
        is_first = False
        if end == "}":
            yield from _read_key(reader, style, write)
            yield from reader.skip_space()
            yield from reader.expect(":")
            write(": ")
        yield from _read_literal(reader, style, write, depth + 1)
        yield from reader.skip_space()
        if reader.current == ",":
            yield from reader.advance()
        elif reader.current != end:
            raise NoCall
    yield from reader.advance()
    write("}" if end == "}" else "]")
    reader.commit()


def _read_key(reader: MarkupReader, style: _LiteralStyle, write: Write) -> Steps[None]:
    if any(reader.current and quote.startswith(reader.current) for quote in style.quotes):
        yield from _read_string(reader, style, write)
        return
    key = yield from _read_bare_key(reader)
    write(json.dumps(key, ensure_ascii=False))


def _read_string(
    reader: MarkupReader, style: _LiteralStyle, write: Write, *, is_raw: bool = False
) -> Steps[None]:
    """Reads a string; those next to it continue it in Python."""
    if not style.has_escapes and reader.current == _JSON_QUOTE:
        yield from _read_json_string(reader, write)
        return
    if not style.has_escapes:
        quote = yield from reader.expect_one_of(*style.quotes)
        write('"')
        reader.commit()
        yield from reader.read_text_until((quote,), lambda text: write_text(write, text))
        write('"')
        reader.commit()
        return
    write('"')
    while reader.current and reader.current in style.quotes:
        yield from read_python_string(reader, write, is_raw=is_raw)
        yield from reader.skip_space()
        prefix = ""
        while reader.current and reader.current in _PREFIX_LETTERS:
            prefix += yield from reader.advance()
        is_raw = "r" in prefix.lower()
    if prefix:
        raise _no_call_from(reader, prefix)
    write('"')
    reader.commit()


def _read_json_string(reader: MarkupReader, write: Write) -> Steps[None]:
    text = JsonText()
    while not text.is_complete:
        if not reader.current or not text.feed(reader.current):
            raise NoCall
        yield from reader.advance()
        write(text.drain())
        reader.commit(keep=len(text.pending))
