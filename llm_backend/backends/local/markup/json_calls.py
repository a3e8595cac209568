"""Parser of calls as JSON objects with the function's name and arguments, alone or in a list:

{"name": "get_weather", "arguments": {"city": "Paris"}}
"""

import json
from collections.abc import Collection

from llm_backend.backends.local.markup.family import Body, Tools
from llm_backend.backends.local.markup.json_text import JsonText, whole_json
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

__all__ = ["json_calls"]

_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")


def json_calls(
    *closings: str, is_known_only: bool = False, separators: tuple[str, ...] = ()
) -> Body:
    """Creates a parser of one object or a list of them, up to one of `closings` if one comes.
    Objects may be separated by `separators`. `is_known_only`: an object that names no known
    function is not a call."""

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        known = tools if is_known_only else None
        yield from reader.skip_space()
        if reader.here == "[":
            yield from _list(reader, known)
        else:
            yield from _call(reader, known)
            while separators and (yield from reader.maybe(*separators)):
                yield from reader.skip_space()
                yield from _call(reader, known)
        if closings:
            yield from reader.maybe(*closings)

    return body


def _value(reader: MarkupReader) -> Steps[str]:
    """Reads one JSON value; returns its text."""
    value, text = JsonText(), ""
    while not value.is_complete:
        if not reader.here or not value.take(reader.here):
            break
        yield from reader.advance()
        text += value.drain()
    value.end_scalar()
    if not value.is_complete:
        raise NoCall
    return text + value.drain()


def _list(reader: MarkupReader, known: Tools | None) -> Steps[None]:
    yield from reader.expect("[")
    while True:
        yield from reader.skip_space()
        yield from _call(reader, known)
        yield from reader.skip_space()
        if reader.here != ",":
            break
        yield from reader.advance()
    yield from reader.expect("]")
    reader.settle()


def _call(reader: MarkupReader, known: Tools | None, *, is_inner: bool = False) -> Steps[None]:
    """Reads one object; other members are ignored."""
    name: str | None = None
    arguments: str | None = None
    calls = reader.calls
    yield from reader.expect("{")
    while True:
        yield from reader.skip_space()
        key = yield from _word(reader, (*_NAMES, *_ARGUMENTS), known, name)
        yield from reader.skip_space()
        yield from reader.expect(":")
        yield from reader.skip_space()
        if key in _ARGUMENTS and name is not None and reader.here == "{" and reader.calls == calls:
            _begin(reader, name, known)
            yield from reader.argue_here()
        elif key in _ARGUMENTS:
            reader.is_doubtful = known is not None and name is None
            arguments = _object((yield from _value(reader)))
        elif key == "function" and reader.here == "{" and not is_inner:
            yield from _call(reader, known, is_inner=True)
        elif key in _NAMES:
            name = yield from _word(reader, known or (), known, None)
            _check(reader, name, known)
        else:
            reader.is_doubtful = known is not None and name is None
            yield from _value(reader)
        yield from reader.skip_space()
        if reader.here != ",":
            break
        yield from reader.advance()
    yield from reader.expect("}")
    if reader.calls == calls:
        _whole(reader, name, arguments, known)
    reader.settle()


def _whole(
    reader: MarkupReader, name: str | None, arguments: str | None, known: Tools | None
) -> None:
    """Emits a call whose arguments came before its name, or not at all."""
    if name is None:
        raise NoCall
    _begin(reader, name, known)
    reader.argue(arguments or "{}")
    reader.end_call()


def _begin(reader: MarkupReader, name: str, known: Tools | None) -> None:
    _check(reader, name, known)
    reader.begin_call(name)


def _check(reader: MarkupReader, name: str, known: Tools | None) -> None:
    reader.is_doubtful = known is not None and name not in known
    if not name or reader.is_doubtful:
        raise NoCall


def _word(
    reader: MarkupReader, words: Collection[str], known: Tools | None, name: str | None
) -> Steps[str]:
    """Reads a string. Text that may be JSON content, as it names no known function yet, is taken
    for content if it ends within a string that is a prefix of none of `words`."""
    if reader.here != '"':
        raise NoCall
    text = ""
    value = JsonText()
    while not value.is_complete:
        if not reader.here or not value.take(reader.here):
            is_open = known is not None and name is None
            reader.is_doubtful = is_open and not any(word.startswith(text[1:]) for word in words)
            raise NoCall
        yield from reader.advance()
        text += value.drain()
    return str(json.loads(text))


def _object(text: str) -> str | None:
    """Returns the JSON of arguments given as an object, as a string with one, or as null."""
    if text.startswith('"'):
        text = whole_json(json.loads(text)) or ""
    if text != "null" and not text.startswith("{"):
        raise NoCall
    return text if text != "null" else None
