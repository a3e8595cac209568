"""Parser of calls as JSON objects with the function's name and arguments, alone or in a list:

{"name": "get_weather", "arguments": {"city": "Paris"}}
"""

import json
from collections.abc import Collection

from llm_backend.backends.local.markup.family import CallParser, Tools
from llm_backend.backends.local.markup.json_text import SPACE, JsonText, normalize_json
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters", "args", "input")


def json_calls(
    *closings: str, is_known_only: bool = False, separators: tuple[str, ...] = ()
) -> CallParser:
    """Creates a parser of one object or a list of them, and of an optional mark of `closings`
    after it. Objects may be separated by `separators`. `is_known_only`: an object that names no
    known function is not a call."""

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        known = tools if is_known_only else None
        yield from reader.skip_space()
        if reader.current == "[":
            yield from _read_list(reader, known)
        else:
            yield from _read_call(reader, known)
            while separators and (yield from _try_separator(reader, separators)):
                yield from _read_call(reader, known)
        if closings:
            yield from reader.try_one_of(*closings)

    return body


def _try_separator(reader: MarkupReader, separators: tuple[str, ...]) -> Steps[bool]:
    """Consumes a separator before the next object; otherwise backtracks and returns False. It is
    not committed: it is content if that object is no call."""
    try:
        yield from reader.skip_space()
        yield from reader.expect_one_of(*separators)
        yield from reader.skip_space()
        if reader.current == "{":
            return True
    except NoCall:
        pass
    if reader.current or not reader.is_cut:
        reader.backtrack()
    return False


def _read_value(reader: MarkupReader) -> Steps[str]:
    """Reads one JSON value; returns its text."""
    value, text = JsonText(), ""
    while not value.is_complete:
        if not reader.current or not value.feed(reader.current):
            break
        yield from reader.advance()
        text += value.drain()
    value.end_scalar()
    if not value.is_complete:
        raise NoCall
    return text + value.drain()


def _read_list(reader: MarkupReader, known: Tools | None) -> Steps[None]:
    yield from reader.expect("[")
    while True:
        yield from reader.skip_space()
        yield from _read_call(reader, known)
        yield from reader.skip_space()
        if reader.current != ",":
            break
        yield from reader.advance()
    yield from reader.expect("]")
    reader.commit()


def _read_call(
    reader: MarkupReader, known: Tools | None, *, is_nested: bool = False
) -> Steps[None]:
    """Reads one object; members besides name and arguments are ignored. `is_nested`: it is the
    value of `function` in another object."""
    name: str | None = None
    arguments: str | None = None
    calls = reader.call_count
    yield from reader.expect("{")
    while True:
        yield from reader.skip_space()
        key = yield from _read_string(reader, (*_NAMES, *_ARGUMENTS), known, name)
        yield from reader.skip_space()
        yield from reader.expect(":")
        yield from reader.skip_space()
        if (
            key in _ARGUMENTS
            and name is not None
            and reader.current == "{"
            and reader.call_count == calls
        ):
            _begin_call(reader, name, known)
            yield from reader.copy_arguments()
        elif key in _ARGUMENTS:
            reader.is_ambiguous = known is not None and name is None
            arguments = _arguments_object((yield from _read_value(reader)))
        elif key == "function" and reader.current == "{" and not is_nested:
            yield from _read_call(reader, known, is_nested=True)
        elif key in _NAMES:
            name = yield from _read_string(reader, known or (), known, None)
            _check_name(reader, name, known)
        else:
            reader.is_ambiguous = known is not None and name is None
            yield from _read_value(reader)
        yield from reader.skip_space()
        if reader.current != ",":
            break
        yield from reader.advance()
    yield from reader.expect("}")
    if reader.call_count == calls:
        _emit_call(reader, name, arguments, known)
    reader.commit()


def _emit_call(
    reader: MarkupReader, name: str | None, arguments: str | None, known: Tools | None
) -> None:
    """Emits a call whose arguments came before its name, or not at all."""
    if name is None:
        raise NoCall
    _begin_call(reader, name, known)
    reader.add_arguments(arguments or "{}")
    reader.end_call()


def _begin_call(reader: MarkupReader, name: str, known: Tools | None) -> None:
    _check_name(reader, name, known)
    reader.begin_call(name)


def _check_name(reader: MarkupReader, name: str, known: Tools | None) -> None:
    reader.is_ambiguous = known is not None and name not in known
    if not name or reader.is_ambiguous:
        raise NoCall


def _read_string(
    reader: MarkupReader, words: Collection[str], known: Tools | None, name: str | None
) -> Steps[str]:
    """Reads a string. If the answer ends inside it before a function is named, the text is JSON
    content or a truncated call: a call may be meant only if one of `words` begins with the string
    so far, and otherwise the text is ambiguous."""
    if reader.current != '"':
        raise NoCall
    text = ""
    value = JsonText()
    while not value.is_complete:
        if not reader.current or not value.feed(reader.current):
            is_open = known is not None and name is None
            reader.is_ambiguous = is_open and not any(word.startswith(text[1:]) for word in words)
            raise NoCall
        yield from reader.advance()
        text += value.drain()
    return str(json.loads(text))


def _arguments_object(text: str) -> str | None:
    """Returns the JSON object of arguments, which may be written as a string that contains one.
    Returns None for null, an empty list and an empty string. Raises `NoCall` for other values."""
    if text.startswith('"'):
        inner = json.loads(text)
        text = normalize_json(inner) or "" if inner.strip() else "null"
    if text.startswith("{"):
        return text
    if text != "null" and text.strip("[" + SPACE) != "]":
        raise NoCall
    return None
