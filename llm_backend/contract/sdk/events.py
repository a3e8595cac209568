"""Events of the SDK: of streams, of WebSockets in both directions, and of webhooks."""

import ast
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.sdk.calls import SdkCall, class_nodes, resource_modules
from llm_backend.contract.sdk.schemas import SdkSchemas
from llm_backend.json_types import JsonMapping, JsonObject, JsonValue

_BETA = "beta."  # prefix of resources whose events differ by their names only


@dataclass(frozen=True, kw_only=True, slots=True)
class SdkSocket:
    """A WebSocket of the SDK: its path, and the types of the events that each side sends."""

    path: str
    client: Any
    server: Any


def read_sockets() -> list[SdkSocket]:
    """Returns the WebSockets of the installed SDK by their paths."""
    sockets = {}
    for name, module in resource_modules():
        if not name.startswith(_BETA):
            for socket in _sockets_of(module):
                sockets[socket.path] = socket
    return [sockets[path] for path in sorted(sockets)]


def stream_events(calls: Iterable[SdkCall], schemas: SdkSchemas) -> dict[str, JsonValue]:
    """Returns the schemas of events by path and sender: of WebSockets, and of streamed answers."""
    events: dict[str, dict[str, JsonValue]] = {}
    for call in calls:
        if call.event is not None and not call.name.startswith(_BETA):
            events.setdefault(call.path, {})["server"] = schemas.schema_of(call.event)
    for socket in read_sockets():
        events.setdefault(socket.path, {})["server"] = schemas.schema_of(socket.server)
        events[socket.path]["client"] = schemas.schema_of(socket.client)
    return dict(events)


def webhooks(schemas: SdkSchemas) -> dict[str, JsonValue]:
    """Returns the events of webhooks as OpenAPI describes them, by name."""
    module = importlib.import_module("openai.types.webhooks.unwrap_webhook_event")
    union = get_args(module.UnwrapWebhookEvent)[0]
    found: dict[str, JsonValue] = {}
    for event in get_args(union):
        name = event.__name__.removesuffix("WebhookEvent")
        body = {"application/json": {"schema": schemas.schema_of(event)}}
        found[re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()] = {
            "post": {"requestBody": {"content": body}, "responses": {"200": {"description": "OK"}}}
        }
    return found


def unknown_events(events: JsonMapping, schemas: JsonMapping, known: JsonMapping) -> JsonObject:
    """Returns the events whose `type` no schema of `known` has; `schemas` are their components."""
    types = set(_each_type(known))
    unknown: JsonObject = {}
    for path, senders in events.items():
        for sender, schema in senders.items():
            branches = [
                one for one in schema.get("anyOf", [schema])
                if _types_of(_resolve(one, schemas)) - types
            ]  # fmt: skip
            if branches:
                unknown.setdefault(path, {})[sender] = {"anyOf": branches}
    return unknown


def _sockets_of(module: Any) -> Iterator[SdkSocket]:
    nodes = [node for node in class_nodes(module) if not node.name.startswith("Async")]
    types = {}
    for node in nodes:
        for method in node.body:
            if not isinstance(method, ast.FunctionDef):
                continue
            if method.name == "parse_event":
                types["server"] = _evaluate(method.returns, module)
            elif method.name == "send" and len(method.args.args) > 1:
                types["client"] = _evaluate(method.args.args[1].annotation, module)
            elif method.name == "_prepare_url":
                yield SdkSocket(path=_path_of(method), **types)


def _evaluate(node: Any, module: Any) -> Any:
    if isinstance(node, ast.BinOp):  # EventModel | EventParam: both describe the same event
        node = node.left
    return eval(ast.unparse(node), vars(module))  # noqa: S307 # a type of the installed SDK


def _path_of(method: ast.FunctionDef) -> str:
    for node in ast.walk(method):
        value = node.value if isinstance(node, ast.Constant) else None
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(text, str) and re.match(r"/\w", text):
            return text
    raise LookupError(f"No path in {ast.unparse(method)}.")


def _resolve(schema: JsonMapping, schemas: JsonMapping) -> JsonMapping:
    name = schema.get("$ref", "").removeprefix(SCHEMAS_PREFIX)
    return schemas.get(name, {}) if name else schema


def _types_of(schema: JsonMapping) -> set[str]:
    return set(schema.get("properties", {}).get("type", {}).get("enum", ()))


def _each_type(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("properties"), Mapping):
            kind = node["properties"].get("type")
            yield from kind.get("enum", ()) if isinstance(kind, Mapping) else ()
        for value in node.values():
            yield from _each_type(value)
    elif isinstance(node, list):
        for value in node:
            yield from _each_type(value)
