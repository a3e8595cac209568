"""Structured output: grammars and schemas of `response_format`, `grammar` and strict `tools`.

A schema that no grammar can express at all is refused with its path. One that a grammar expresses
in part constrains generation as far as it does, and the answer is validated against the whole
schema before it is sent.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_backend.backends.base import Grammar, JsonContent
from llm_backend.backends.schemas import AnswerSchema, LoweredSchema, Path, lower_schema
from llm_backend.contract.validation_messages import field_name
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonValue

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    ResponseFormat = (
        api.ResponseFormatText | api.ResponseFormatJsonSchema | api.ResponseFormatJsonObject
    )


NODES = 40_000
SCHEMA_PATH: Path = ("response_format", "json_schema", "schema")
TEXT: "api.ResponseFormatText" = {"type": "text"}
ANY_OBJECT: Mapping[str, JsonValue] = {"type": "object"}


@dataclass(frozen=True, kw_only=True)
class StructuredOutput:
    """Constraints of an answer; `schema` validates its whole content, `calls` the arguments of
    strict functions, by name. `is_exact` is True if the grammar expresses the whole schema."""

    grammar: Grammar | JsonContent | None = None
    schema: AnswerSchema | None = None
    calls: Mapping[str, AnswerSchema] = field(default_factory=dict)
    is_exact: bool = True


async def structure_from(
    body: "api.CreateChatCompletionRequest", *, nodes_limit: int = NODES
) -> StructuredOutput:
    """Compiles the constraints of a body. Raises `InvalidRequest` with the field and, in a schema,
    the path."""
    response_format = body.get("response_format") or TEXT
    grammar = body.get("grammar")
    tools = _strict_tools(body)
    if grammar is None and response_format["type"] == "text" and not tools:
        return StructuredOutput()
    _check_single_constraint(body)
    if grammar is not None:
        return StructuredOutput(grammar=Grammar(text=grammar, field="grammar"))
    # Compiling a long schema takes time.
    return await asyncio.to_thread(_structure_of, response_format, tools, nodes_limit)


def _strict_tools(body: "api.CreateChatCompletionRequest") -> "Mapping[int, api.FunctionObject]":
    """Returns the strict functions by index among the tools."""
    if body.get("tool_choice") == "none":
        return {}
    return {
        index: tool["function"]
        for index, tool in enumerate(body.get("tools") or ())
        if tool["type"] == "function"
        and tool["function"].get("strict")
        and tool["function"].get("parameters") is not None
    }


def _check_single_constraint(body: "api.CreateChatCompletionRequest") -> None:
    """Raises `InvalidRequest` if a body has more than one constraint."""
    is_text = (body.get("response_format") or TEXT)["type"] == "text"
    if body.get("grammar") is not None and not is_text:
        raise InvalidRequest(
            "`grammar` and `response_format` each say what the answer is; give one of them.",
            param="grammar",
        )
    has_tools = body.get("tools") and body.get("tool_choice") != "none"
    if body.get("grammar") is not None and has_tools:
        raise UnsupportedField(
            "Answers of local models follow `tools` or a `grammar`, not both; leave one out, or "
            "forbid calls with `tool_choice: none`.",
            param="grammar",
        )


def _structure_of(
    response_format: "ResponseFormat", tools: "Mapping[int, api.FunctionObject]", nodes_limit: int
) -> StructuredOutput:
    calls: dict[str, AnswerSchema] = {}
    is_exact = True
    for index, function in tools.items():
        path = ("tools", index, "function", "parameters")
        lowered, calls[function["name"]] = _lower(function["parameters"], path, nodes_limit)
        is_exact &= lowered.is_exact
    if response_format["type"] == "text":
        return StructuredOutput(calls=calls, is_exact=is_exact)
    if response_format["type"] == "json_object":
        content = JsonContent(schema=ANY_OBJECT, field="response_format")
        schema = AnswerSchema(ANY_OBJECT, ())
        return StructuredOutput(grammar=content, schema=schema, calls=calls, is_exact=is_exact)
    if "schema" not in response_format["json_schema"]:
        raise InvalidRequest(
            "`json_schema` needs the `schema` that the answer must follow.",
            param=field_name(SCHEMA_PATH),
            code="missing_required_parameter",
        )
    lowered, schema = _lower(response_format["json_schema"]["schema"], SCHEMA_PATH, nodes_limit)
    name = ".".join(map(str, SCHEMA_PATH))
    content = JsonContent(schema=lowered.schema, field=name, lowered=lowered)
    is_exact &= lowered.is_exact
    return StructuredOutput(grammar=content, schema=schema, calls=calls, is_exact=is_exact)


def _lower(schema: JsonValue, path: Path, nodes_limit: int) -> tuple[LoweredSchema, AnswerSchema]:
    _check_size(schema, path, nodes_limit)
    checked = AnswerSchema(schema, path)
    lowered = lower_schema(schema, path)
    if lowered.is_exact:
        return lowered, checked
    return lowered, AnswerSchema(schema, path, has_formats=True)


def _check_size(schema: JsonValue, path: Path, nodes_limit: int) -> None:
    """Raises `InvalidRequest` for a schema too large to compile: it would block other threads."""
    nodes, unread = 0, [schema]
    while unread and nodes <= nodes_limit:
        value = unread.pop()
        if isinstance(value, dict):
            nodes += 2 * len(value)
            unread += value.values()
        elif isinstance(value, list):
            nodes += len(value)
            unread += value
    if nodes > nodes_limit:
        raise InvalidRequest(
            f"The schema has more than {nodes_limit} values and names, which is this server's "
            "limit (`schema_nodes_limit`).",
            param=field_name(path),
            code="invalid_json_schema",
        )
