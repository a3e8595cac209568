"""Small bodies that ask for much: below 32 KiB, up to which work is done on the event loop."""

from collections.abc import Callable

from llm_backend.json_types import JsonValue

LETTERS = r"\p{L}{100}"
ASK: JsonValue = [{"role": "user", "content": "a"}]


def _patterns(pattern: str, count: int) -> JsonValue:
    properties = {
        f"a{number}": {"type": "string", "pattern": f"{pattern}{number}"} for number in range(count)
    }
    return {"type": "object", "properties": properties}


def _fan(depth: int) -> JsonValue:
    """Alternatives that are references to alternatives: twice as many on each level."""
    levels: dict[str, JsonValue] = {
        f"d{level}": {"oneOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(depth)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**levels, f"d{depth}": {"type": "object"}}}


def _tool(number: int, parameters: JsonValue, *, strict: bool = True) -> JsonValue:
    return {"name": f"f{number}", "strict": strict, "parameters": parameters}


def _tools(parameters: JsonValue, count: int, *, strict: bool = True) -> JsonValue:
    return [
        {"type": "function", "function": _tool(number, parameters, strict=strict)}
        for number in range(count)
    ]


def _format(schema: JsonValue) -> JsonValue:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}


SCHEMAS: dict[str, Callable[[], JsonValue]] = {
    "expressions of large classes": lambda: _patterns(LETTERS, 100),
    "an expression of many escapes": lambda: _patterns(r"\s" * 14_000, 1),
    "many escapes in a value": lambda: {
        "$ref": "#/default", "default": {"type": "string", "pattern": r"\w" * 14_000},
    },
    "keys of many escapes": lambda: {
        "type": "object", "patternProperties": {r"\d" * 14_000: {"type": "string"}},
    },
    "a fan": lambda: _fan(14),
    "many references": lambda: {
        "type": "object",
        "properties": {f"a{number}": {"$ref": "#/$defs/a"} for number in range(900)},
        "$defs": {"a": {"oneOf": [{"const": number} for number in range(40)]}},
    },
    "conditions": lambda: {
        "allOf": [
            {"if": {"required": [f"a{number}"]}, "then": {"required": [f"b{number}"]}}
            for number in range(400)
        ]
    },
}  # fmt: skip
IMAGES = ["a"] * 7000


def _with_format(schema: Callable[[], JsonValue]) -> Callable[[], JsonValue]:
    return lambda: {"messages": ASK, "response_format": _format(schema())}


SMALL: dict[str, dict[str, Callable[[], JsonValue]]] = {
    "createChatCompletion": {
        **{f"small: {name}": _with_format(schema) for name, schema in SCHEMAS.items()},
        "small: tools of fans": lambda: {"messages": ASK, "tools": _tools(_fan(12), 27)},
        "small: forced tools of expressions": lambda: {
            "messages": ASK, "tool_choice": "required",
            "tools": _tools(_patterns(LETTERS, 4), 60, strict=False),
        },
        "small: many tools": lambda: {
            "messages": ASK, "tools": _tools({"type": "object", "properties": {}}, 120),
        },
        "small: images": lambda: {
            "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,a"}},
            ] * 400}],
        },
    },
    "createResponse": {
        f"small: {name}": lambda schema=schema: {
            "input": "a", "text": {"format": {"type": "json_schema", "name": "a",
                                              "schema": schema()}},
        }
        for name, schema in SCHEMAS.items()
    },
    "createOllamaChat": {
        "small: images": lambda: {
            "messages": [{"role": "user", "content": "a", "images": IMAGES}],
        },
        "small: expressions": lambda: {
            "messages": ASK, "format": _patterns(LETTERS, 100), "stream": False,
        },
    },
    "createOllamaCompletion": {
        "small: images": lambda: {"prompt": "a", "images": IMAGES, "stream": False},
    },
    "createAnthropicMessage": {
        "small: tools of fans": lambda: {
            "max_tokens": 4, "messages": ASK,
            "tools": [{"name": f"f{number}", "strict": True, "input_schema": _fan(12)}
                      for number in range(27)],
        },
    },
}  # fmt: skip
