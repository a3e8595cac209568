"""Structured output: grammars and schemas of `response_format`, `grammar` and strict `tools`.

A schema that no grammar can express is refused with its path. If a grammar expresses a part of a
schema, generation is constrained by that part, and the answer is validated against the whole schema
before it is sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llm_backend.backends.base import Grammar, JsonContent
from llm_backend.backends.schemas import (
    AnswerSchema,
    LoweredSchema,
    Path,
    SchemaBudget,
    SchemaLimits,
    lower_schema,
)
from llm_backend.contract.validation_messages import field_name
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonValue
from llm_backend.offload import offload_schema
from llm_backend.settings import Settings

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    ResponseFormat = (
        api.ResponseFormatText | api.ResponseFormatJsonSchema | api.ResponseFormatJsonObject
    )


SCHEMA_PATH: Path = ("response_format", "json_schema", "schema")
_NAME_PATH: Path = (*SCHEMA_PATH[:-1], "name")
_SCHEMA_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
TEXT: "api.ResponseFormatText" = {"type": "text"}
ANY_OBJECT: Mapping[str, JsonValue] = {"type": "object"}


@dataclass(frozen=True, kw_only=True)
class StructuredOutput:
    """Constraints of an answer. `schema` validates its whole content. By names of strict functions,
    `calls` validates the arguments, and `lowered_calls` has the schemas that the grammar enforces.
    `needs_no_validation` is True if all that the grammar permits is valid by the schemas. `budget`
    is the unused part of the request's budget of schemas."""

    grammar: Grammar | JsonContent | None = None
    schema: AnswerSchema | None = None
    calls: Mapping[str, AnswerSchema] = field(default_factory=dict)
    lowered_calls: Mapping[str, LoweredSchema] = field(default_factory=dict)
    needs_no_validation: bool = True
    budget: SchemaBudget = field(default_factory=SchemaBudget)


def schema_limits(settings: Settings) -> SchemaLimits:
    """Returns the limits of a request's schemas."""
    return SchemaLimits(
        nodes=settings.schema_nodes_limit, patterns_bytes=settings.schema_patterns_limit_bytes
    )


async def structure_from(
    body: "api.CreateChatCompletionRequest", limits: SchemaLimits | None = None
) -> StructuredOutput:
    """Returns the constraints of a body. Raises `InvalidRequest` with the path of the invalid
    part."""
    response_format = body.get("response_format") or TEXT
    grammar = body.get("grammar")
    tools = _strict_tools(body)
    budget = SchemaBudget(limits or SchemaLimits())
    if grammar is None and response_format["type"] == "text" and not tools:
        return StructuredOutput(budget=budget)
    _check_single_constraint(body)
    if grammar is not None:
        return StructuredOutput(grammar=Grammar(text=grammar, field="grammar"), budget=budget)
    return await offload_schema(_structure_of, response_format, tools, budget)


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
            "`grammar` and `response_format` both determine the form of the answer; give one.",
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
    response_format: "ResponseFormat",
    tools: "Mapping[int, api.FunctionObject]",
    budget: SchemaBudget,
) -> StructuredOutput:
    calls: dict[str, AnswerSchema] = {}
    lowered_calls: dict[str, LoweredSchema] = {}
    for index, function in tools.items():
        path = ("tools", index, "function", "parameters")
        name = function["name"]
        lowered_calls[name], calls[name] = _lower(function["parameters"], path, budget)
    structure = StructuredOutput(
        calls=calls,
        lowered_calls=lowered_calls,
        needs_no_validation=all(one.needs_no_validation for one in lowered_calls.values()),
        budget=budget,
    )
    if response_format["type"] == "text":
        return structure
    if response_format["type"] == "json_object":
        content = JsonContent(schema=ANY_OBJECT, field="response_format")
        return replace(structure, grammar=content, schema=AnswerSchema(ANY_OBJECT, ()))
    if "schema" not in response_format["json_schema"]:
        raise InvalidRequest(
            "`json_schema` needs the `schema` that the answer must follow.",
            param=field_name(SCHEMA_PATH),
            code="missing_required_parameter",
        )
    if not _SCHEMA_NAME.fullmatch(response_format["json_schema"]["name"]):
        raise InvalidRequest(
            f"`{response_format['json_schema']['name'][:80]}` is not a valid name of a schema: it "
            "must have 1 to 64 letters, digits, `_` or `-`.",
            param=field_name(_NAME_PATH),
        )
    lowered, schema = _lower(response_format["json_schema"]["schema"], SCHEMA_PATH, budget)
    name = ".".join(map(str, SCHEMA_PATH))
    content = JsonContent(schema=lowered.schema, field=name, lowered=lowered)
    needs_no_validation = structure.needs_no_validation and lowered.needs_no_validation
    return replace(
        structure, grammar=content, schema=schema, needs_no_validation=needs_no_validation
    )


def _lower(
    schema: JsonValue, path: Path, budget: SchemaBudget
) -> tuple[LoweredSchema, AnswerSchema]:
    budget.spend(schema, path)
    checked = AnswerSchema(schema, path)
    lowered = lower_schema(schema, path, budget=budget)
    if lowered.needs_no_validation:
        return lowered, checked
    return lowered, AnswerSchema(schema, path, has_formats=True)
