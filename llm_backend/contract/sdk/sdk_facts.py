"""Facts of `openapi/sdk.yaml`: what the SDK calls or reads and the document lacks.

Schemas have the SDK's names, with the prefix `Sdk` if the document uses the name. An answer with
the same facts as an answer of the document has the document's schema.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from llm_backend.contract.compilation.builder import METHODS, FactsDumper, sort_facts
from llm_backend.contract.compilation.summaries import id_of
from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.sdk.calls import SdkCall, read_calls, sdk_version
from llm_backend.contract.sdk.events import stream_events, unknown_events, webhooks
from llm_backend.contract.sdk.operations import id_of_call, key_of, operation_of
from llm_backend.contract.sdk.schemas import SdkSchemas
from llm_backend.json_types import JsonMapping, JsonObject, JsonValue

_HEADER = """\
# Written by `llm-backend contract sdk`; do not edit. Departures belong into overlay.yaml.
#
# Operations, webhooks and events that the official Python SDK (openai {version}) calls or reads
# and openapi.yaml lacks: names, types and structure, without prose. The SDK is Copyright (c) OpenAI
# and under the Apache License 2.0, whose notice stands in openapi/README.md.
"""
_COLLISION_PREFIX = "Sdk"
_SHORT_CHARACTERS = 88


def sdk_facts(document: JsonMapping) -> dict[str, JsonValue]:
    """Returns what the installed SDK has beyond a document, sorted.

    Raises `ImportError` if the SDK is not installed.
    """
    known = {
        key_of(method, path): item[method]
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }
    calls = read_calls()
    schemas = SdkSchemas(_shared_answers(calls, known))
    paths: dict[str, dict[str, JsonValue]] = {}
    taken = {operation["operationId"] for operation in known.values()}
    for call in calls:
        key = key_of(call.method, call.path)
        if key not in known:
            operation_id = id_of_call(call)
            if operation_id in taken:
                operation_id = id_of(call.method, call.path)
            taken.add(operation_id)
            known[key] = operation_of(call, operation_id, schemas)
            paths.setdefault(call.path, {})[call.method] = known[key]
    facts = {
        "openapi": document["openapi"],
        "info": {"title": "Operations of the official Python SDK", "version": sdk_version()},
        "paths": paths,
        "webhooks": webhooks(schemas),
        "x-events": stream_events(calls, schemas),
        "components": {"schemas": schemas.components},
    }
    return settle_facts(facts, document)


def settle_facts(facts: JsonMapping, document: JsonMapping) -> dict[str, JsonValue]:
    """Returns the facts that a document lacks, with names for schemas that it does not use."""
    known = {key_of(method, path) for path, item in document["paths"].items() for method in item}
    paths = {
        path: {m: operation for m, operation in item.items() if key_of(m, path) not in known}
        for path, item in facts["paths"].items()
    }
    settled = {**facts, "paths": {path: item for path, item in paths.items() if item}}
    known_webhooks = document.get("webhooks", {})
    settled["webhooks"] = {
        name: item for name, item in facts.get("webhooks", {}).items() if name not in known_webhooks
    }
    theirs, ours = document["components"]["schemas"], facts["components"]["schemas"]
    settled["x-events"] = unknown_events(facts.get("x-events", {}), ours, theirs)
    roots = [settled[part] for part in ("paths", "webhooks", "x-events")]
    schemas = _select_reached(roots, ours)
    settled["components"] = {"schemas": schemas}
    colliding = schemas.keys() & theirs.keys()
    return sort_facts(
        _rename_schemas(settled, {name: f"{_COLLISION_PREFIX}{name}" for name in colliding})
    )


def dump_sdk(facts: JsonMapping) -> str:
    """Returns the facts as the text of `sdk.yaml`."""
    head = _HEADER.format(version=facts["info"]["version"])
    return head + yaml.dump(facts, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(FactsDumper):
    """YAML dumper that writes short values in one line."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        return super().represent_mapping(tag, mapping, flow_style=_is_short(mapping))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=_is_short(sequence))


def _is_short(value: Any) -> bool:
    return len(json.dumps(value)) <= _SHORT_CHARACTERS


def _shared_answers(
    calls: Iterable[SdkCall], known: Mapping[tuple[str, str], Any]
) -> dict[str, str]:
    """Returns the names of the document's schemas for answers, by the facts of the SDK's."""
    shared: dict[str, str] = {}
    for call in calls:
        operation = known.get(key_of(call.method, call.path), {})
        answer = operation.get("responses", {}).get("200", {}).get("content", {})
        reference = answer.get("application/json", {}).get("schema", {}).get("$ref")
        if reference and isinstance(call.answer, type) and hasattr(call.answer, "model_fields"):
            facts = SdkSchemas().object_of(call.answer)
            shared.setdefault(
                json.dumps(facts, sort_keys=True), reference.removeprefix(SCHEMAS_PREFIX)
            )
    return shared


def _select_reached(roots: Any, schemas: JsonMapping) -> JsonObject:
    """Returns the schemas to which the roots refer, directly or by other schemas."""
    reached: JsonObject = {}
    unread = [roots]
    while unread:
        for name in _references(unread.pop()):
            if name in schemas and name not in reached:
                reached[name] = schemas[name]
                unread.append(schemas[name])
    return reached


def _references(node: Any) -> list[str]:
    return re.findall(rf'"\$ref": "{SCHEMAS_PREFIX}([^"]+)"', json.dumps(node))


def _rename_schemas(facts: JsonMapping, names: Mapping[str, str]) -> Any:
    """Returns the facts with schemas and references to them renamed."""
    schemas = facts["components"]["schemas"]
    renamed = {names.get(name, name): schema for name, schema in schemas.items()}
    text = json.dumps({**facts, "components": {"schemas": renamed}})
    for old, new in names.items():
        text = text.replace(f'"{SCHEMAS_PREFIX}{old}"', f'"{SCHEMAS_PREFIX}{new}"')
    return json.loads(text)
