"""Parser of calls as XML-like tags, one tag per argument, whose value is plain text:

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

Values that may be other than strings by the function's schema are parsed as JSON.
"""

import json

from llm_backend.backends.base import FUNCTION_NAME_LENGTH
from llm_backend.backends.local.markup.family import CallParser, Tools
from llm_backend.backends.local.markup.json_calls import json_calls
from llm_backend.backends.local.markup.json_text import normalize_json
from llm_backend.backends.local.markup.parameters import is_of_types, is_text, value_types
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps
from llm_backend.json_types import JsonMapping


def tag_calls(closing: str) -> CallParser:
    """Creates a parser of a tag's content up to `closing`: JSON, `<function=...>`, or a name and
    `<arg_key>`s."""
    read_json = json_calls(closing)

    def body(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
        yield from reader.skip_space()
        if reader.current and reader.current in "{[":
            yield from read_json(reader, opening, tools)
            return
        if reader.current == "<":
            yield from reader.expect("<function=")
            yield from function_calls(reader, opening, tools)
        else:
            yield from _read_key_value_call(reader, closing, tools)
        yield from reader.try_one_of(closing)

    return body


def function_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads a call after `<function=`."""
    name = yield from reader.read_name()
    yield from reader.expect(">")
    call = _TagCall(reader, name, tools)
    while (yield from reader.try_one_of("<parameter=", "</function>")) == "<parameter=":
        key = yield from _read_key(reader, ">")
        yield from call.read_value(key, "</parameter>")
    call.end()


def _read_key_value_call(reader: MarkupReader, closing: str, tools: Tools) -> Steps[None]:
    name = yield from reader.read_name()
    yield from reader.skip_space()
    if reader.current != "<":
        raise NoCall
    has_ended = (yield from reader.expect_one_of("<arg_key>", closing)) == closing
    call = _TagCall(reader, name, tools)
    while not has_ended:
        key = yield from _read_key(reader, "</arg_key>")
        yield from reader.skip_space()
        yield from reader.expect("<arg_value>")
        yield from call.read_value(key, "</arg_value>")
        has_ended = not (yield from reader.try_one_of("<arg_key>"))
    call.end()


def _read_key(reader: MarkupReader, closing: str) -> Steps[str]:
    """Reads an argument's name, in which any character of a line may be, and `closing`."""
    key = ""
    while reader.current not in (closing[0], "\n") and len(key) < FUNCTION_NAME_LENGTH:
        key += yield from reader.advance()
    yield from reader.expect(closing)
    if not key:
        raise NoCall
    return key


class _TagCall:
    """Call whose arguments are read one by one."""

    def __init__(self, reader: MarkupReader, name: str, tools: Tools) -> None:
        self._reader = reader
        self._schema = tools.get(name, {})
        self._properties: JsonMapping = self._schema.get("properties") or {}
        self._keys: set[str] = set()
        reader.begin_call(name)
        reader.add_arguments("{")

    def read_value(self, key: str, closing: str) -> Steps[None]:
        """Reads the next argument: its text up to `closing`, without the line breaks around it. Of
        arguments with the same name the first one counts."""
        reader = self._reader
        is_new = key not in self._keys
        if is_new:
            reader.add_arguments(
                (", " if self._keys else "") + json.dumps(key, ensure_ascii=False) + ": "
            )
        self._keys.add(key)
        if reader.current == "\n":
            yield from reader.advance()
        reader.commit()
        marks = ("\n" + closing, closing)
        if not is_new:
            yield from reader.read_text_until(marks, lambda text: None)
            return
        schema = self._properties.get(key)
        # An argument without a schema is a string.
        if not isinstance(schema, dict) or not schema or is_text(schema):
            reader.add_arguments('"')
            yield from reader.read_text_until(marks, self._write)
            reader.add_arguments('"')
            return
        pieces: list[str] = []
        yield from reader.read_text_until(marks, pieces.append)
        reader.add_arguments(_as_json("".join(pieces), value_types(schema, self._schema)))

    def end(self) -> None:
        """Ends the arguments."""
        self._reader.add_arguments("}")
        self._reader.end_call()

    def _write(self, text: str) -> None:
        self._reader.add_arguments(json.dumps(text, ensure_ascii=False)[1:-1])


def _as_json(text: str, types: frozenset[str]) -> str:
    """Returns the text if it is JSON, otherwise the text as a JSON string. Text that
    is JSON of a type which is not among `types`, as `75001` may be, stays text if strings are."""
    value = normalize_json(text)
    if value and ("string" not in types or is_of_types(value, types)):
        return value
    return json.dumps(text, ensure_ascii=False)
