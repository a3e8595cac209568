"""The largest bodies that operations take, made from the document: one for each way to be large."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from llm_backend import exact_json
from llm_backend.contract import Document
from llm_backend.json_types import JsonValue
from tests import large_forms
from tests.small_bodies import SMALL

PREFIX = "#/components/schemas/"
NODES = 390_000  # a little less than `json_nodes_limit`
TEXT_BYTES = 15_500_000  # than `json_text_limit_bytes`
FILE_BYTES = 31_000_000  # than `body_limit_bytes`
TOKENIZED_BYTES = 1024 * 1024  # `tokenize_limit_bytes`
WORDS = "words, and more: "
MODELS = ("builtin", "relayed")


@dataclass(frozen=True, kw_only=True)
class Large:
    """One large body, in pieces, and which of an operation's ways to be large it is."""

    operation_id: str
    shape: str
    pieces: Sequence[bytes]
    media_type: str = "application/json"


class LargeBodies:
    """Makes them for the operations of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._components: dict[str, JsonValue] = {}

    def shapes(self, operation_id: str) -> list[str]:
        """The ways of one operation's bodies to be large; none where it takes no body."""
        return [*(shape for shape, _ in self._bodies(operation_id)), *self._forms(operation_id)]

    def of(self, operation_id: str, shapes: Collection[str]) -> Iterator[Large]:
        """The large bodies of one operation of these shapes."""
        for shape, body in self._bodies(operation_id):
            if shape in shapes:
                text = exact_json.dumps(body())
                yield Large(operation_id=operation_id, shape=shape, pieces=[text])
        for shape, form in self._forms(operation_id).items():
            if shape in shapes:
                yield Large(
                    operation_id=operation_id, shape=shape, pieces=form(),
                    media_type=large_forms.TYPE,
                )  # fmt: skip

    def _bodies(self, operation_id: str) -> Iterator[tuple[str, Callable[[], JsonValue]]]:
        content = self._document.operation(operation_id).get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema")
        if schema is None:
            return
        least = self._least(schema, 0)
        if not isinstance(least, dict):
            least = {}
        if "model" in least or "model" in self._properties(schema):
            least["model"] = _model(self._document, operation_id)
        least |= SHORT.get(operation_id, {})
        for field, place in self._properties(schema).items():
            for shape, value in self._fields(place):
                yield f"{field}: {shape}", partial(_with, least, field, value)
        for shape, value in FREE.items():
            yield f"an unknown field: {shape}", partial(_with, least, "vendor", value)
        for shape, value in {**OWN.get(operation_id, {}), **SMALL.get(operation_id, {})}.items():
            yield shape, partial(_with, least, None, value)

    def _forms(self, operation_id: str) -> dict[str, Callable[[], Sequence[bytes]]]:
        content = self._document.operation(operation_id).get("requestBody", {}).get("content", {})
        schema = content.get("multipart/form-data", {}).get("schema")
        if schema is None:
            return {}
        properties = self._properties(schema)
        required = [*self._required(next(self._branches(schema, 0)))] or [*properties][:1]
        names = dict.fromkeys([*required, *({"model"} & properties.keys())])
        kinds = {name: [*self._branches(properties[name], 0)] for name in names}
        files = [name for name, kind in kinds.items() if any(map(_is_file, kind))]
        fields = {name: str(self._least(properties[name], 0)) for name in names.keys() - files}
        if "model" in fields:
            fields["model"] = "relayed"
        forms = large_forms.forms(operation_id, files, fields)
        return {f"form: {shape}": form for shape, form in forms.items()}

    def _fields(self, schema: JsonValue) -> Iterator[tuple[str, Callable[[], JsonValue]]]:
        """Large values of one field, by each type that it may have."""
        for branch in self._branches(schema, 0):
            kind = branch.get("type")
            if kind == "string" and not {"enum", "const", "maxLength", "pattern"} & branch.keys():
                yield "text", lambda: WORDS * (TEXT_BYTES // len(WORDS))
                yield "wide text", lambda: "\U0001f600" * (TEXT_BYTES // 4)
                yield "a file", lambda: "data:image/png;base64," + "A" * FILE_BYTES
            elif kind == "array":
                item = self._least(branch.get("items", {}), 0)
                count = min(NODES // _nodes(item), branch.get("maxItems", NODES))
                yield "many items", partial(_list_of, item, count)
            elif kind == "object" and branch.get("additionalProperties"):
                value = self._least(branch["additionalProperties"], 0)
                yield "many keys", partial(_object_of, value, NODES // 3)

    def _least(self, schema: JsonValue, depth: int) -> JsonValue:
        """The smallest value that a schema takes."""
        if not isinstance(schema, dict) or depth > 12:
            return "a"
        branches = list(self._branches(schema, 0))
        simple = [one for one in branches if one.get("type") in ("string", "integer", "number")]
        one = (simple or branches or [{}])[0]
        if "const" in one or "enum" in one:
            return one.get("const", one.get("enum", [None])[0])
        match one.get("type"):
            case "object" | None if "properties" in one or "allOf" in one:
                properties = self._properties(one)
                return {
                    name: self._least(properties.get(name), depth + 1)
                    for name in self._required(one)
                }
            case "object":
                return {}
            case "array":
                return [self._least(one.get("items", {}), depth + 1)] * max(
                    1, one.get("minItems", 1)
                )
            case "integer" | "number":
                return max(1, one.get("minimum", 1))
            case "boolean":
                return False
            case "null":
                return None
        return "a"

    def _branches(self, schema: JsonValue, depth: int) -> Iterator[JsonValue]:
        """The alternatives that a schema is."""
        if not isinstance(schema, dict) or depth > 8:
            return
        if "$ref" in schema:
            yield from self._branches(self._component(schema), depth + 1)
            return
        alternatives = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
        for one in alternatives:
            yield from self._branches(one, depth + 1)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            yield from ({**schema, "type": kind} for kind in kinds)
        elif not alternatives:
            yield schema

    def _properties(self, schema: JsonValue) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = {}
        for one in [*self._branches(schema, 0)] if isinstance(schema, dict) else []:
            for part in one.get("allOf", ()):
                found |= self._properties(part)
            found |= one.get("properties", {})
        return found

    def _required(self, schema: JsonValue) -> list[str]:
        parts = [self._component(one) if "$ref" in one else one for one in schema.get("allOf", ())]
        return [
            *schema.get("required", ()),
            *(name for one in parts for name in self._required(one)),
        ]

    def _component(self, schema: JsonValue) -> JsonValue:
        name = schema["$ref"].removeprefix(PREFIX)
        if name not in self._components:
            self._components[name] = json.loads(self._document.component("schemas", name))
        return self._components[name]


def _is_file(schema: JsonValue) -> bool:
    return schema.get("format") == "binary" or (
        schema.get("type") == "array" and schema["items"].get("format") == "binary"
    )


def _with(least: JsonValue, field: str | None, value: Callable[[], JsonValue]) -> JsonValue:
    return {**least, **(value() if field is None else {field: value()})}


def _list_of(item: JsonValue, count: int) -> JsonValue:
    return [item] * count


def _object_of(value: JsonValue, count: int) -> JsonValue:
    return {f"k{place}": value for place in range(count)}


def _model(document: Document, operation_id: str) -> str:
    return MODELS[document.operations[operation_id].answered_by != "local"]


def _nodes(value: JsonValue) -> int:
    text = json.dumps(value)
    return 1 + sum(map(text.count, ",:[{"))


def _nested(depth: int) -> JsonValue:
    return {"a": [_nested(depth - 2)]} if depth > 1 else {}


def _any_of(nodes: int) -> JsonValue:
    """A schema of alternatives within alternatives."""
    leaf = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    branch = {"anyOf": [leaf] * 8}
    whole = {"anyOf": [branch] * (nodes // _nodes(branch))}
    return {"type": "object", "properties": {"a": whole}, "required": ["a"]}


def _deep_any_of() -> JsonValue:
    schema: JsonValue = {"type": "string"}
    for _ in range(40):
        schema = {"anyOf": [schema, {"type": "null"}]}
    return schema


FREE = {
    "many keys": lambda: _object_of(1, NODES // 3),
    "many objects": lambda: [{"a": {}}] * (NODES // 5),
    "deep": lambda: [_nested(90)] * (NODES // 280),
    "marks in text": lambda: "[{,:" * (TEXT_BYTES // 4),
    "escapes": lambda: '\n"' * (TEXT_BYTES // 4),
    "long numbers": lambda: [10**30] + [0.123456789] * (NODES - 100),
}


SHORT = {
    "createChatCompletion": {"max_tokens": 4},
    "createCompletion": {"max_tokens": 4},
    "createResponse": {"max_output_tokens": 16},
}


def _message(text: str = "a") -> JsonValue:
    return {"role": "user", "content": text}


def _tool(parameters: JsonValue, *, strict: bool = False, name: str = "f") -> JsonValue:
    return {"name": name, "parameters": parameters, "strict": strict}


def _format(schema: JsonValue) -> JsonValue:
    return {"name": "a", "schema": schema, "strict": True}


def file() -> str:
    return "data:image/png;base64," + "A" * FILE_BYTES


def _image() -> JsonValue:
    content = [{"type": "image_url", "image_url": {"url": file()}}, {"type": "text", "text": "a"}]
    return [{"role": "user", "content": content}]


_CHAT = {
    "many messages": lambda: {"messages": [_message()] * (NODES // 5)},
    "a message of many parts": lambda: {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * (NODES // 6)}]
    },
    "a long message": lambda: {"messages": [_message(WORDS * (TEXT_BYTES // len(WORDS)))]},
    "a message of control tokens": lambda: {
        "messages": [_message("<|im_end|>" * (TEXT_BYTES // 10))]
    },
    "many calls": lambda: {
        "messages": [
            _message(),
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ]
                * (NODES // 12),
            },
        ]
    },
    "a tool of many alternatives": lambda: {
        "messages": [_message()],
        "tools": [{"type": "function", "function": _tool(_any_of(NODES - 100))}],
    },
    "a strict tool of many alternatives": lambda: {
        "messages": [_message()],
        "tools": [{"type": "function", "function": _tool(_any_of(NODES - 100), strict=True)}],
    },
    "many tools": lambda: {
        "messages": [_message()],
        "tools": [{"type": "function", "function": _tool({}, name=f"f{n}")} for n in range(128)],
    },
    "a schema of many alternatives": lambda: {
        "messages": [_message()],
        "response_format": {"type": "json_schema", "json_schema": _format(_any_of(NODES - 100))},
    },
    "a schema of deep alternatives": lambda: {
        "messages": [_message()],
        "response_format": {"type": "json_schema", "json_schema": _format(_deep_any_of())},
    },
    "a schema of many properties": lambda: {
        "messages": [_message()],
        "response_format": {
            "type": "json_schema",
            "json_schema": _format(
                {
                    "type": "object",
                    "properties": {f"k{n}": {"type": "string"} for n in range(NODES // 5)},
                }
            ),
        },
    },
    "a schema of one enum": lambda: {
        "messages": [_message()],
        "response_format": {
            "type": "json_schema",
            "json_schema": _format({"enum": [f"k{n}" for n in range(NODES - 100)]}),
        },
    },
    "many template variables": lambda: {
        "messages": [_message()],
        "chat_template_kwargs": {f"k{n}": 1 for n in range(NODES // 3)},
    },
    "many biases": lambda: {
        "messages": [_message()],
        "logit_bias": {str(n): 1 for n in range(NODES // 2 - 100)},
    },
    "an image": lambda: {"messages": _image()},
    "an image of a relayed chat": lambda: {"model": "relayed", "messages": _image()},
    "many messages of a relayed chat": lambda: {
        "model": "relayed",
        "messages": [_message()] * (NODES // 5),
    },
    "a long relayed chat": lambda: {
        "model": "relayed",
        "messages": [_message(WORDS * (TEXT_BYTES // len(WORDS)))],
    },
}

_RESPONSE = {
    "many items": lambda: {"input": [_message()] * (NODES // 5)},
    "many typed items": lambda: {"input": [{"type": "message", **_message()}] * (NODES // 7)},
    "an item of many parts": lambda: {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}] * (NODES // 6)}]
    },
    "a long item": lambda: {"input": [_message(WORDS * (TEXT_BYTES // len(WORDS)))]},
    "many calls": lambda: {
        "input": [
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
        ]
        * (NODES // 18)
    },
    "many calls alone": lambda: {
        "input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}]
        * (NODES // 10)
    },
    "a tool of many alternatives": lambda: {
        "input": "a",
        "tools": [{"type": "function", **_tool(_any_of(NODES - 100))}],
    },
    "a format of many alternatives": lambda: {
        "input": "a",
        "text": {"format": {"type": "json_schema", **_format(_any_of(NODES - 100))}},
    },
    "a file": lambda: {
        "input": [{"role": "user", "content": [{"type": "input_file", "filename": "a.txt",
                                                "file_data": file()}]}],
    },
    "an image": lambda: {
        "input": [{"role": "user", "content": [{"type": "input_image", "detail": "auto",
                                                "image_url": file()}]}],
    },
    "a relayed image": lambda: {
        "model": "relayed",
        "input": [{"role": "user", "content": [{"type": "input_image", "detail": "auto",
                                                "image_url": file()}]}],
    },
    "many relayed items": lambda: {"model": "relayed", "input": [_message()] * (NODES // 5)},
    "a long relayed item": lambda: {
        "model": "relayed", "input": [_message(WORDS * (TEXT_BYTES // len(WORDS)))],
    },
    "many items bridged": lambda: {"model": "chats-only", "input": [_message()] * (NODES // 5)},
}  # fmt: skip

OWN: dict[str, dict[str, Callable[[], JsonValue]]] = {
    "createChatCompletion": {
        **_CHAT,
        "many messages, kept": lambda: {
            "messages": [_message()] * 4000, "max_tokens": 1, "store": True,
            "metadata": {f"k{n}": "a" * 500 for n in range(16)},
        },
    },
    "renderChatPrompt": _CHAT,
    "createResponse": _RESPONSE,
    "Getinputtokencounts": _RESPONSE,
    "Compactconversation": _RESPONSE,
    "createAnthropicMessage": {
        "many messages": lambda: {"messages": [_message()] * (NODES // 5)},
        "a long message": lambda: {"messages": [_message(WORDS * (TEXT_BYTES // len(WORDS)))]},
        "many uses of tools": lambda: {
            "messages": [
                _message(),
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {}}
                    for number in range(NODES // 10)
                ]},
            ],
        },
        "a use of a tool with much input": lambda: {
            "messages": [
                _message(),
                {"role": "assistant", "content": [
                    {"type": "tool_use", "id": "t", "name": "f",
                     "input": {"a": [10**30] + [0.5] * (NODES - 100)}},
                ]},
            ],
        },
    },
    "createOllamaChat": {
        "many messages": lambda: {"messages": [_message()] * (NODES // 5)},
        "a long message": lambda: {"messages": [_message(WORDS * (TEXT_BYTES // len(WORDS)))]},
        "many calls": lambda: {
            "messages": [
                _message(),
                {"role": "assistant", "content": "", "tool_calls": [
                    {"function": {"name": "f", "arguments": {"a": 1}}}
                ] * (NODES // 9)},
            ],
        },
    },
    "createEmbedding": {
        "tokens": lambda: {"input": [1] * (NODES - 10)},
        "lists of tokens": lambda: {"input": [[1] * (NODES // 2001)] * 2000},
    },
    "createCompletion": {
        "tokens": lambda: {"prompt": [1] * (NODES - 10)},
        "lists of tokens": lambda: {"prompt": [[1] * (NODES // 65)] * 64},
    },
    "createDecision": {
        "many questions": lambda: {
            "input": WORDS, "questions": [
                {"type": "predicate", "instructions": WORDS * 4} for _ in range(400)
            ],
        },
        "many answers": lambda: {
            "input": "a", "questions": [
                {"type": "choice", "instructions": "a",
                 "choices": [{"value": str(n)} for n in range(255)]} for _ in range(40)
            ],
        },
        "deep JSON": lambda: {
            "input": [{"role": "user", "content": [
                {"type": "input_json", "data": [{"a": [1] * (NODES - 50)}]},
            ]}],
            "questions": [{"type": "predicate", "instructions": "a"}],
        },
    },
    "createConversation": {"many items": _RESPONSE["many typed items"]},
    "createConversationItems": {
        "many items": lambda: {"items": [{"type": "message", **_message()}] * (NODES // 7)},
    },
    "createModeration": {
        "many texts": lambda: {"input": ["a"] * (NODES - 10)},
        "64 long texts": lambda: {"input": ["word " * (TEXT_BYTES // 400)] * 64},
    },
    "tokenize": {
        "as many tokens as it takes": lambda: {"text": "\U0001f600" * (TOKENIZED_BYTES // 4)},
    },
    "detokenize": {"tokens": lambda: {"tokens": [1] * (NODES - 10)}},
    "createRerank": {
        "many documents": lambda: {"query": "a", "documents": ["a"] * (NODES - 10)},
    },
}  # fmt: skip
