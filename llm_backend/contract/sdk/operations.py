"""Calls of the SDK as operations of OpenAPI, with ids made from method and path."""

import re
from collections.abc import Mapping

from llm_backend.contract.compilation.summaries import singular_of, tag_of
from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.sdk.calls import SdkCall
from llm_backend.contract.sdk.schemas import SdkSchemas
from llm_backend.json_types import JsonValue

_VERBS = {"retrieve": "Get", "update": "Change", "hangup": "Hang up"}
_ADMIN: list[JsonValue] = [{"AdminApiKeyAuth": []}]


def key_of(method: str, path: str) -> tuple[str, str]:
    """Returns method and path without query and without the names of parameters."""
    return method.lower(), re.sub(r"\{[^}]*\}", "{}", path.partition("?")[0])


def id_of_call(call: SdkCall) -> str:
    """Returns an operation id such as `createAgent` or `listAgentSessionTurnItems`."""
    verb, *rest = call.name.rpartition(".")[2].split("_")
    segments = [part for part in call.path.split("/") if part]
    is_named_like_path = segments[-1] == "_".join([verb, *rest])
    if is_named_like_path and call.method == "get":
        verb, rest = "get", []
    elif is_named_like_path or (rest and not segments[-1].startswith("{")):
        segments.pop()  # /webhook_endpoints/{id}/rotate_secret
    nouns = []
    for index, segment in enumerate(segments):
        if segment.startswith("{"):
            continue
        is_singular = index + 1 < len(segments) or verb == "create" or segments[-1].startswith("{")
        nouns.append(singular_of(segment) if is_singular else segment)
    return verb + "".join(map(_pascal, [*nouns, *rest]))


def operation_of(call: SdkCall, operation_id: str, schemas: SdkSchemas) -> dict[str, JsonValue]:
    """Returns the operation of a call; its schemas go to `schemas`."""
    operation: dict[str, JsonValue] = {
        "operationId": operation_id,
        "responses": _responses(call, schemas),
        "summary": _summary_of(operation_id),
        "tags": [tag_of(call.path.removeprefix("/organization"))],
    }
    if parameters := _parameters(call, schemas):
        operation["parameters"] = parameters
    if call.has_body:
        operation["requestBody"] = _body(call, operation_id, schemas)
    if call.administers:
        operation["security"] = _ADMIN
    return operation


def _summary_of(operation_id: str) -> str:
    """Returns a line such as `Create an agent session`, from the words of an id."""
    verb, *nouns = re.findall(r"[A-Za-z][a-z0-9]*", operation_id)
    noun = " ".join(nouns).lower()
    is_singular = not nouns[-1].endswith("s") and verb not in {"list", "get"}
    article = ("an " if noun[0] in "aeiou" else "a ") if is_singular else ""
    return f"{_VERBS.get(verb, verb.capitalize())} {article}{noun}"


def _parameters(call: SdkCall, schemas: SdkSchemas) -> list[JsonValue]:
    parameters: list[JsonValue] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{([^}]+)\}", call.path)
    ]
    fields = schemas.fields_of(call.query_params) if call.query else {}
    for name in call.query:
        sent, hint, is_required = fields[name]
        parameters.append(_parameter(sent, "query", is_required, schemas.schema_of(hint)))
    for header in call.headers:
        parameters.append(_parameter(header, "header", False, {"type": "string"}))
    return sorted(parameters, key=lambda one: (one["in"], one["name"]))


def _parameter(
    name: str, location: str, is_required: bool, schema: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    parameter: dict[str, JsonValue] = {"name": name, "in": location, "schema": schema}
    return {**parameter, "required": True} if is_required else parameter


def _body(call: SdkCall, operation_id: str, schemas: SdkSchemas) -> dict[str, JsonValue]:
    elsewhere = {*re.findall(r"\{([^}]+)\}", call.path), *call.query, *call.headers.values()}
    name = f"{_pascal(operation_id)}Request"
    schema = schemas.body_of(call.params, elsewhere)
    schemas.components[name] = schema
    media = "multipart/form-data" if call.has_files else "application/json"
    body: dict[str, JsonValue] = {"content": {media: {"schema": {"$ref": SCHEMAS_PREFIX + name}}}}
    return {**body, "required": True} if _has_required(schema) else body


def _has_required(schema: Mapping[str, JsonValue]) -> bool:
    branches = schema.get("anyOf")
    return all(map(_has_required, branches)) if branches else bool(schema.get("required"))


def _responses(call: SdkCall, schemas: SdkSchemas) -> dict[str, JsonValue]:
    content: dict[str, JsonValue] = {}
    is_stream = call.accept == "text/event-stream"
    if getattr(call.answer, "__name__", "") == "HttpxBinaryResponseContent":
        content[call.accept or "*/*"] = {"schema": {"type": "string", "format": "binary"}}
    elif call.answer not in {None, type(None)} and not is_stream:
        content["application/json"] = {"schema": schemas.schema_of(call.answer)}
    if call.event is not None:
        content["text/event-stream"] = {"schema": schemas.schema_of(call.event)}
    return {"200": {"description": "OK", **({"content": content} if content else {})}}


def _pascal(words: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[_-]", words))
