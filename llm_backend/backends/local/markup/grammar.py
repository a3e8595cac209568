"""Grammars that constrain output to a family's tool calls, in llguidance's dialect of Lark.

A mark that is a single token is written as that token (`<[7]>`): the same characters as text tokens
mean something else to the model. Arguments follow their schema. White space between JSON tokens is
bounded, because a model could otherwise produce it forever.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_backend.backends.local.markup.family import ArgumentStyle, CallNotation, Markup, Thinking
from llm_backend.backends.local.markup.lark import LARK
from llm_backend.backends.local.markup.parameters import is_text
from llm_backend.backends.schemas import LoweredSchema
from llm_backend.engine.messages import GrammarLimits
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonMapping

_PLACEHOLDER = re.compile(r"(\{name\}|\{arguments\}|\{number\})")
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}/]")
_CALLS_LIMIT = 64  # of one answer: a weak model might never stop
_FINAL = "<|channel|>final<|message|>"  # Harmony's header of the final answer
_ANY_TEXT = r"/(?s:.*)/"
_BYTES_LIMIT = GrammarLimits().bytes
_BOUNDED_SPACE = {"whitespace_pattern": r"[ \n]{1,40}"}
_NO_SPACE = {"whitespace_flexible": False}  # JSON content is for parsers
_NO_PARAMETERS: JsonMapping = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


@dataclass(frozen=True, kw_only=True)
class Function:
    """Function that may be called; it has no parameters if `parameters` is None. Schema keywords
    that llguidance does not support are an error if `is_strict`, otherwise they are ignored.
    `param` (the parameters' field in the request) and `lowered` are for error messages."""

    name: str
    parameters: JsonMapping | None
    is_strict: bool = False
    param: str = "tools"
    lowered: LoweredSchema | None = None


def calls_grammar(
    markup: Markup,
    functions: Sequence[Function],
    tokens: Mapping[str, int],
    *,
    is_required: bool,
    is_parallel: bool,
    is_thinking: bool = False,
    content: JsonMapping | None = None,
) -> str:
    """Builds the grammar of an answer that calls these functions.

    Unless `is_required`, an answer without calls is valid as well: any text, or JSON by the schema
    `content` if there is one. Unless `is_parallel`, there is one call at most. `is_thinking`: the
    prompt has opened the reasoning. `tokens` maps the marks that are single tokens to their ids.
    """
    assert markup.calls is not None, "every family has calls"
    rules = _GrammarRules(markup.calls.notation, tokens)
    rules.add_functions(functions)
    thought = rules.add_reasoning(markup, is_thinking)
    if is_required or content is not None:
        calls = rules.calls_expression(is_parallel, skip="")
        if content is not None and not is_required:
            rules.add_content(markup, content)
            calls = f"({calls} | content)"
        rules.add("start", f"{thought} {calls}".strip())
    else:
        rules.add("start", f"{thought} answer".strip())
        if markup.messages is not None:
            rules.add_messages()
        else:
            opening = next(iter(markup.calls.openings), "")
            rules.add_answer(opening, is_bare=markup.calls.is_bare, is_parallel=is_parallel)
    return rules.text()


def content_grammar(
    markup: Markup,
    schema: JsonMapping,
    tokens: Mapping[str, int],
    *,
    is_thinking: bool = False,
) -> str:
    """Builds the grammar of an answer in JSON by this schema; reasoning is unconstrained."""
    assert markup.calls is not None, "every family has calls"
    rules = _GrammarRules(markup.calls.notation, tokens)
    rules.add("start", f"{rules.add_reasoning(markup, is_thinking)} content".strip())
    rules.add_content(markup, schema)
    return rules.text()


class _GrammarRules:
    """Builder of the rules of one grammar."""

    def __init__(self, notation: CallNotation, tokens: Mapping[str, int]) -> None:
        self._notation = notation
        self._tokens = tokens
        self._rules: list[str] = []
        self._length = 0
        by_length = sorted(tokens, key=len, reverse=True)
        self._mark = re.compile(f"({'|'.join(map(re.escape, by_length))})") if tokens else None

    def add(self, name: str, body: str) -> None:
        """Adds a rule."""
        rule = f"{name}: {body}"
        self._rules.append(rule)
        self._length += len(rule)

    def text(self) -> str:
        """Returns all rules."""
        return "\n".join(self._rules)

    def add_functions(self, functions: Sequence[Function]) -> None:
        """Adds `call`: a call of any of these functions."""
        names = [f"call_{index}" for index in range(len(functions))]
        self.add("call", " | ".join(names))
        for name, function in zip(names, functions, strict=True):
            self.add(name, " ".join(self._call_pieces(name, function)))

    def calls_expression(self, is_parallel: bool, *, skip: str) -> str:
        """Returns the expression of one or more calls, without the beginning `skip` of their
        markup."""
        notation = self._notation
        begin = self._literal(notation.begin.removeprefix(skip))
        more = ""
        if is_parallel and notation.between is not None:
            more = f"({self._literal(notation.between)} call){{0,{_CALLS_LIMIT - 1}}}"
        return " ".join(filter(None, (begin, "call", more, self._literal(notation.end))))

    def add_answer(self, opening: str, *, is_bare: bool, is_parallel: bool) -> None:
        """Adds `answer`: text, and calls after the opening or, if `is_bare`, without one."""
        calls = self.calls_expression(is_parallel, skip=opening if not is_bare else "")
        if is_bare:
            self.add("answer", f"{calls} | TEXT |")
            self.add("TEXT", r"/[^\s{\[](?s:.*)/")
            return
        self.add("TEXT", _text_without(opening))
        one = f"opening {calls}"
        self.add("answer", f"({one})* TEXT" if is_parallel else f"TEXT | {one}")
        if opening in self._tokens:
            self.add("opening", f"TEXT <[{self._tokens[opening]}]>")
        else:
            self.add("opening[lazy]", f"/(?s:.*){_regex(opening)}/")

    def add_messages(self) -> None:
        """Adds `answer`: Harmony's final message, or a call, which a preamble may precede."""
        call = self.calls_expression(False, skip="")
        announced = self._literal("<|channel|>commentary<|message|>")
        between = self._literal("<|end|><|start|>assistant")
        self.add(
            "answer", f"{self._literal(_FINAL)} MESSAGE | ({announced} MESSAGE {between})? {call}"
        )

    def add_content(self, markup: Markup, schema: JsonMapping) -> None:
        """Adds `content`: JSON by this schema, in Harmony after a header."""
        begin = self._literal(_FINAL) if markup.messages else ""
        self.add("content", f"{begin} json_content".strip())
        self.add("json_content", "%json " + json.dumps({**schema, "x-guidance": _NO_SPACE}))

    def add_reasoning(self, markup: Markup, is_thinking: bool) -> str:
        """Returns the expression of reasoning before the answer, optional unless the prompt has
        opened it."""
        if markup.messages is not None:
            return self._add_analysis()
        if markup.thinking is None:
            return ""
        self._add_marked_reasoning(markup.thinking, is_thinking)
        return "thought" if is_thinking else "thought?"

    def _add_analysis(self) -> str:
        """Returns the expression of Harmony's messages before the final one or the call."""
        self.add("MESSAGE", _ANY_TEXT)
        self.add(
            "thought",
            self._literal("<|channel|>analysis<|message|>")
            + " MESSAGE "
            + self._literal("<|end|><|start|>assistant"),
        )
        return "thought?"

    def _add_marked_reasoning(self, thinking: Thinking, is_thinking: bool) -> None:
        opening, closing = thinking.opening, thinking.closing
        if closing in self._tokens:
            begin = "" if is_thinking else self._literal(opening)
            self.add("THOUGHT", _ANY_TEXT)
            self.add("thought", f"{begin} THOUGHT {self._literal(closing)} SPACE")
        else:
            begin = "" if is_thinking else _regex(opening)
            self.add("thought", "ended SPACE")
            self.add("ended[lazy]", f"/{begin}(?s:.*){_regex(closing)}/")
        self.add("SPACE", r"/[ \n]{0,4}/")

    def _call_pieces(self, rule: str, function: Function) -> Iterator[str]:
        for piece in _PLACEHOLDER.split(self._notation.call):
            if piece == "{name}":
                yield self._literal(function.name)
            elif piece == "{number}":
                yield "/[0-9]{1,3}/"
            elif piece == "{arguments}":
                yield from self._argument_pieces(rule, function)
            elif piece:
                yield self._literal(piece)

    def _argument_pieces(self, rule: str, function: Function) -> Iterator[str]:
        schema = function.parameters if function.parameters is not None else _NO_PARAMETERS
        kind = self._notation.arguments
        if kind is ArgumentStyle.JSON:
            self.add(f"{rule}_arguments", _json_rule(_as_object(schema), function.is_strict))
            yield f"{rule}_arguments"
            return
        properties = {
            f"{rule}_{index}": (name, value)
            for index, (name, value) in enumerate((schema.get("properties") or {}).items())
        }
        required = {name for name in schema.get("required") or () if isinstance(name, str)}
        for key, (name, value) in properties.items():
            self._check_length()
            self._add_argument(key, name, _with_definitions(value, schema), function.is_strict)
        present = [(key, name in required) for key, (name, _) in properties.items()]
        if kind in (ArgumentStyle.PARAMETER_TAGS, ArgumentStyle.KEY_VALUE_TAGS):
            yield from (key if is_required else f"{key}?" for key, is_required in present)
            return
        separator = '", "' if kind is ArgumentStyle.KEYWORDS else '","'
        listed = self._join_arguments(rule, present, separator)
        yield f'"{{" {listed} "}}"' if kind is ArgumentStyle.GEMMA else listed

    def _check_length(self) -> None:
        """Raises `InvalidRequest` for too long a grammar: the rule of each argument has a copy of
        the definitions that it refers to."""
        if self._length > _BYTES_LIMIT:
            raise InvalidRequest(
                f"The functions' parameters make a grammar of more than {_BYTES_LIMIT} bytes.",
                param="tools",
            )

    def _join_arguments(
        self, rule: str, present: Sequence[tuple[str, bool]], separator: str
    ) -> str:
        """Returns the expression of these arguments in their order, each optional unless it is
        required."""
        first = after = ""
        for index, (key, is_required) in reversed(list(enumerate(present))):
            alone = f"{key} {after}".strip()
            more = f"{separator} {key}" if is_required else f"({separator} {key})?"
            first = alone if is_required else f"({alone} | {first})" if first else f"({alone})?"
            self.add(f"{rule}_after_{index}", f"{more} {after}".strip())
            after = f"{rule}_after_{index}"
        return first

    def _add_argument(self, rule: str, name: str, schema: Any, is_strict: bool) -> None:
        kind = self._notation.arguments
        if kind is ArgumentStyle.PARAMETER_TAGS:
            begin, end = f"<parameter={name}>\n", "\n</parameter>\n"
        elif kind is ArgumentStyle.KEY_VALUE_TAGS:
            begin, end = f"<arg_key>{name}</arg_key>\n<arg_value>", "</arg_value>\n"
        elif kind is ArgumentStyle.KEYWORDS:
            begin, end = f"{name}=", ""
        else:
            begin, end = f"{name}:", ""
        value = self._add_value(rule, schema, end, is_strict)
        self.add(rule, f"{self._literal(begin)} {value}")

    def _add_value(self, rule: str, schema: Any, end: str, is_strict: bool) -> str:
        """Returns the expression of a value with the text that ends it."""
        kind = self._notation.arguments
        if not is_text(schema) or kind is ArgumentStyle.KEYWORDS:
            self.add(f"{rule}_value", _json_rule(schema, is_strict))
            return f"{rule}_value {self._literal(end)}".strip()
        quote, ending = self._literal(self._notation.quote), self._notation.quote + end
        if LARK in schema:
            self.add(f"{rule}_value", f"%lark {{\n{schema[LARK]}\n}}")
            return f"{quote} {rule}_value {self._literal(ending)}".strip()
        if words := _enumerated_strings(schema):
            choice = " | ".join(json.dumps(word, ensure_ascii=False) for word in words)
            return f"{quote} ({choice}) {self._literal(ending)}".strip()
        if ending.strip() in self._tokens:
            self.add(f"TEXT_{rule.upper()}", _ANY_TEXT)
            return f"{quote} TEXT_{rule.upper()} {self._literal(ending)}".strip()
        self.add(f"{rule}_value[lazy]", f"/(?s:.*){_regex(ending)}/")
        return f"{quote} {rule}_value".strip()

    def _literal(self, text: str) -> str:
        """Returns the expression of a fixed text, with its marks as tokens."""
        pieces = self._mark.split(text) if self._mark is not None else [text]
        return " ".join(
            f"<[{self._tokens[piece]}]>"
            if piece in self._tokens
            else json.dumps(piece, ensure_ascii=False)
            for piece in pieces
            if piece
        )


def _as_object(schema: JsonMapping) -> JsonMapping:
    """Returns the schema with `type: object`, which schemas of arguments may omit."""
    return schema if "type" in schema or "$ref" in schema else {"type": "object", **schema}


def _json_rule(schema: Any, is_strict: bool) -> str:
    if not isinstance(schema, dict):
        schema = {"not": {}} if schema is False else {}
    options = _BOUNDED_SPACE if is_strict else {**_BOUNDED_SPACE, "lenient": True}
    return "%json " + json.dumps({**schema, "x-guidance": options})


def _enumerated_strings(schema: JsonMapping) -> list[str]:
    """Returns the strings that the schema enumerates; empty if it does not."""
    words = schema["enum"] if isinstance(schema.get("enum"), list) else []
    if "const" in schema:
        words = [schema["const"]]
    return [word for word in words if isinstance(word, str)]


def _with_definitions(schema: Any, root: JsonMapping) -> Any:
    """Returns a property's schema with the definitions that it refers to."""
    if not isinstance(schema, dict) or "$ref" not in json.dumps(schema):
        return schema
    definitions = {name: root[name] for name in ("$defs", "definitions") if name in root}
    return {**definitions, **schema}


def _regex(text: str) -> str:
    """Returns the regular expression of a text, as it is written within `/.../`."""
    return _SPECIAL.sub(r"\\\g<0>", text).replace("\n", r"\n")


def _text_without(text: str) -> str:
    """Returns the expression of text that does not contain this one."""
    return f"{_ANY_TEXT} & ~/(?s:.*){_regex(text)}(?s:.*)/" if text else _ANY_TEXT
