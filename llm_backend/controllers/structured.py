"""`response_format` and `grammar` -> the grammar that an answer must follow.

A schema is never followed in part: what the grammar cannot say is refused by its place. Keywords
that ask for nothing (`uniqueItems: false`) and formats that no specification knows are left out.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_backend.backends.base import Grammar, JsonContent
from llm_backend.contract.complaint import field_name
from llm_backend.controllers.answer_schema import AnswerSchema
from llm_backend.errors import InvalidRequest, UnsupportedField

__all__ = ["Structure", "structure_from"]

Json = Any  # a schema, or a part of one: any JSON value
Path = tuple[str | int, ...]

NODES = 40_000
SCHEMA_PATH: Path = ("response_format", "json_schema", "schema")
TEXT: Mapping[str, Json] = {"type": "text"}
ANY_OBJECT: Mapping[str, Json] = {"type": "object"}
FORMATS = {
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
}  # fmt: skip
UNSUPPORTED_FORMATS = {
    "idn-email", "idn-hostname", "uri-reference", "iri", "iri-reference", "uri-template",
    "json-pointer", "relative-json-pointer", "regex",
}  # fmt: skip
UNSUPPORTED: Mapping[str, tuple[Json, ...]] = {
    "not": (False,), "if": (), "then": (), "else": (), "uniqueItems": (False,), "contains": (),
    "minContains": (), "maxContains": (), "dependentRequired": ({},), "dependentSchemas": ({},),
    "dependencies": ({},), "propertyNames": (True, {}), "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}), "$dynamicRef": (), "$dynamicAnchor": (),
    "$recursiveRef": (), "$recursiveAnchor": (False,),
}  # fmt: skip
"""Keywords that no grammar says, each with the values that ask for nothing."""
SCHEMA_LISTS = {"allOf", "anyOf", "oneOf", "prefixItems"}
SCHEMA_MAPS = {"properties", "patternProperties", "$defs", "definitions"}
SCHEMAS = {"items", "additionalItems", "additionalProperties"}


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What every answer must follow, if anything; `schema` is what it must be once it is whole."""

    grammar: Grammar | JsonContent | None = None
    schema: AnswerSchema | None = None


async def structure_from(body: Mapping[str, Json], *, nodes_limit: int = NODES) -> Structure:
    """What this body asks its answers to follow. Raises `InvalidRequest` that names the field, in a
    schema its place."""
    wanted = body.get("response_format") or TEXT
    grammar = body.get("grammar")
    if grammar is None and wanted == TEXT:
        return Structure()
    _refuse_two(body)
    if grammar is not None:
        return Structure(grammar=Grammar(text=grammar, field="grammar"))
    return await asyncio.to_thread(_structure_of, wanted, nodes_limit)  # a schema may be long


def _refuse_two(body: Mapping[str, Json]) -> None:
    """An answer can follow only one thing."""
    is_text = (body.get("response_format") or TEXT) == TEXT
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


def _structure_of(wanted: Mapping[str, Json], nodes_limit: int) -> Structure:
    if wanted["type"] == "json_object":
        content = JsonContent(schema=ANY_OBJECT, field="response_format")
        return Structure(grammar=content, schema=AnswerSchema(ANY_OBJECT, ()))
    if "schema" not in wanted["json_schema"]:
        raise InvalidRequest(
            "`json_schema` needs the `schema` that the answer must follow.",
            param=field_name(SCHEMA_PATH),
            code="missing_required_parameter",
        )
    schema = wanted["json_schema"]["schema"]
    _check_size(schema, nodes_limit)
    content = JsonContent(schema=_sayable(schema), field=".".join(map(str, SCHEMA_PATH)))
    return Structure(grammar=content, schema=AnswerSchema(schema, SCHEMA_PATH))


def _check_size(schema: Json, nodes_limit: int) -> None:
    """Raises `InvalidRequest` for a schema that would take long to compile: other threads wait."""
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
            param=field_name(SCHEMA_PATH),
            code="invalid_json_schema",
        )


def _sayable(schema: Json, path: Path = SCHEMA_PATH) -> Json:
    """The schema as a grammar can say it; raises `InvalidRequest` at the first place that none
    can. What is no schema at all is left for others to refuse."""
    if not isinstance(schema, dict):
        return schema
    said: dict[str, Json] = {}
    for keyword, value in schema.items():
        place = (*path, keyword)
        if keyword in UNSUPPORTED:
            _refuse_unless_idle(keyword, value, place)
        elif keyword == "format" and isinstance(value, str):
            said |= _format(value, place)
        elif keyword == "$ref" and not str(value).startswith("#"):
            raise _unsupported(f"The reference `{value[:100]}` leads out of the schema", place)
        elif keyword != "x-guidance":  # the native code's options are ours
            said[keyword] = _part(keyword, value, place)
    return said


def _part(keyword: str, value: Json, path: Path) -> Json:
    if keyword in SCHEMA_MAPS and isinstance(value, dict):
        return {name: _sayable(part, (*path, name)) for name, part in value.items()}
    if keyword in SCHEMA_LISTS | {"items"} and isinstance(value, list):
        return [_sayable(part, (*path, place)) for place, part in enumerate(value)]
    return _sayable(value, path) if keyword in SCHEMAS else value


def _refuse_unless_idle(keyword: str, value: Json, path: Path) -> None:
    if not any(value == idle and type(value) is type(idle) for idle in UNSUPPORTED[keyword]):
        raise _unsupported(f"No answer can be held to the keyword `{keyword}`", path)


def _format(value: str, path: Path) -> dict[str, str]:
    if value in UNSUPPORTED_FORMATS:
        known = ", ".join(sorted(FORMATS))
        raise _unsupported(f"No answer can be held to the format `{value}`, only to {known}", path)
    return {"format": value} if value in FORMATS else {}


def _unsupported(message: str, path: Path) -> InvalidRequest:
    return InvalidRequest(f"{message}.", param=field_name(path), code="invalid_json_schema")
