"""Parsers of calls that are a name, a mark, and the arguments as a JSON object:

[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}
"""

from llm_backend.backends.local.markup.family import Tools
from llm_backend.backends.local.markup.json_calls import json_calls
from llm_backend.backends.local.markup.reader import MarkupReader, NoCall, Steps

_LIST = json_calls()


def read_arguments(reader: MarkupReader, name: str, *ends: str) -> Steps[None]:
    """Reads the arguments of a call of `name`: an object. There may be none, or null, before one of
    `ends`, which is not consumed, or the end of an answer that was not cut."""
    yield from reader.skip_space()
    if reader.current == "{":
        reader.begin_call(name)
        yield from reader.copy_arguments()
        return
    if reader.current == "n":
        yield from reader.expect("null")
        yield from reader.skip_space()
    if reader.current:
        end = yield from reader.expect_one_of(*ends)
        reader.commit(keep=len(end))
        reader.backtrack()
    elif reader.is_cut:
        raise NoCall
    reader.begin_call(name)
    reader.add_arguments("{}")
    reader.end_call()


def mistral_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads `[TOOL_CALLS][{...}]`, newer `[TOOL_CALLS]name[ARGS]{...}`, also with `[CALL_ID]`."""
    yield from reader.skip_space()
    if reader.current and reader.current in "[{":
        yield from _LIST(reader, opening, tools)
        return
    name = yield from reader.read_name()
    if reader.current == "[":
        mark = yield from reader.expect_one_of("[ARGS]", "[CALL_ID]")
        if mark == "[CALL_ID]":
            yield from reader.read_name()
            yield from reader.expect("[ARGS]")
    else:
        yield from reader.skip_space()
        if reader.current != "{":
            raise NoCall
    yield from read_arguments(reader, name, opening)


def deepseek_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads a name, a mark, and the arguments. Before V3.1 the mark was between type and name, and
    the arguments were in a JSON code fence."""
    is_first = opening != "<｜tool▁call▁begin｜>"
    while True:
        if is_first:
            yield from reader.skip_space()
            yield from reader.expect("<｜tool▁call▁begin｜>")
        is_first = True
        name = yield from reader.read_name()
        yield from reader.expect("<｜tool▁sep｜>")
        yield from reader.skip_space()
        is_fenced = reader.current not in ("{", "<", "")
        if is_fenced:
            name = yield from reader.read_name()
            yield from reader.skip_space()
            yield from reader.expect("```json")
        yield from read_arguments(reader, name, "```" if is_fenced else "<｜tool▁call▁end｜>")
        if is_fenced:
            yield from reader.try_one_of("```")
        yield from reader.try_one_of("<｜tool▁call▁end｜>")
        found = yield from reader.try_one_of("<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>")
        if found != "<｜tool▁call▁begin｜>":
            return
        is_first = False


def kimi_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{...}` and
    `<|tool_call_end|>`."""
    yield from reader.skip_space()
    yield from reader.expect("<|tool_call_begin|>")
    while True:
        yield from reader.skip_space()
        name = yield from reader.read_name()
        yield from reader.skip_space()
        yield from reader.expect("<|tool_call_argument_begin|>")
        name = name.removeprefix("functions.").rpartition(":")[0] or name
        yield from read_arguments(reader, name, "<|tool_call_end|>")
        yield from reader.try_one_of("<|tool_call_end|>")
        if (
            yield from reader.try_one_of("<|tool_calls_section_end|>", "<|tool_call_begin|>")
        ) != "<|tool_call_begin|>":
            return


def tag_json_calls(reader: MarkupReader, opening: str, tools: Tools) -> Steps[None]:
    """Reads `<function=name>{...}</function>`."""
    name = yield from reader.read_name()
    yield from reader.expect(">")
    yield from read_arguments(reader, name, "</function>")
    yield from reader.try_one_of("</function>")
