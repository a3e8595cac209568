"""Builds `openapi/openapi.yaml` from OpenAI's published document, without its prose.

Every path, type, bound, default and enum is kept. A key is dropped by its position, not by its
name: `description` is prose beside `type`, and a property under `properties`. Paths that differ
only by `?beta=true` are folded into the path without it.
"""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

import yaml

from llm_backend.json_types import JsonValue

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

_PROSE = frozenset({"description", "summary", "title", "example", "examples", "externalDocs"})
_NAMED = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "paths"}
    | {"schemas", "responses", "parameters", "headers", "requestBodies", "securitySchemes"}
    | {"content", "webhooks", "callbacks", "variables", "encoding", "links", "pathItems"}
)
_VERBATIM = frozenset({"enum", "default", "const", "required", "discriminator", "security"})
_BETA = "?beta=true"
_HEADER = """\
# Written by `llm-backend contract build`; do not edit. Departures belong into overlay.yaml.
#
# The facts of {title} {version}: names, types, bounds, defaults and structure, without prose.
# The document it was taken from is Copyright (c) OpenAI (https://openai.com) and under the MIT
# License, whose text stands in openapi/README.md.
"""


def build_contract(source: str, target: Path) -> Mapping[str, JsonValue]:
    """Writes the document at `source`, a path or an http(s) URL, without prose to `target`.

    Returns the written document. The same source gives the same bytes.
    """
    document = yaml.load(_read(source), Loader=yaml.CSafeLoader)
    facts = facts_of(document)
    head = _HEADER.format(title=facts["info"]["title"], version=facts["info"]["version"])
    body = yaml.dump(facts, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    target.write_text(head + body, encoding="utf-8")
    return facts


def facts_of(document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Returns the document without prose, with the `?beta=true` paths folded in."""
    facts: dict[str, JsonValue] = {
        "openapi": document["openapi"],
        "info": {key: document["info"][key] for key in ("title", "version", "license")},
    }
    for key, value in document.items():
        if key not in facts and not key.startswith("x-"):
            facts[key] = _name_refs(value) if key in _NAMED else _facts(value)
    _describe_responses(facts)
    _fold_beta_twins(facts["paths"])
    return facts


def _read(source: str) -> bytes:
    if source.startswith(("http://", "https://")):
        with urlopen(source, timeout=60) as response:  # noqa: S310 # http or https, as checked
            return bytes(response.read())
    return Path(source).read_bytes()


def _facts(node: JsonValue) -> JsonValue:
    if isinstance(node, list):
        return [_facts(item) for item in node]
    if not isinstance(node, dict):
        return node
    facts: dict[str, JsonValue] = {}
    for key, value in node.items():
        if key in _PROSE or key.startswith("x-"):
            continue
        if key in _VERBATIM:
            facts[key] = value
        elif key in _NAMED and isinstance(value, dict):
            facts[key] = _name_refs(value)
        else:
            facts[key] = _facts(value)
    return facts


def _name_refs(node: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {str(name): _facts(value) for name, value in node.items()}


def _describe_responses(facts: Mapping[str, JsonValue]) -> None:
    """Gives each response the description that OpenAPI requires: the status's own phrase."""
    for name, response in facts["components"].get("responses", {}).items():
        response["description"] = name
    for item in [*facts["paths"].values(), *facts.get("webhooks", {}).values()]:
        for method in METHODS:
            for status, response in item.get(method, {}).get("responses", {}).items():
                if "$ref" not in response:
                    response["description"] = HTTPStatus(int(status)).phrase


def _fold_beta_twins(paths: dict[str, JsonValue]) -> None:
    """Moves each operation of `path?beta=true` under `x-beta` of the same operation of `path`."""
    for path in [path for path in paths if path.endswith(_BETA)]:
        for method, twin in paths.pop(path).items():
            operation = paths[path.removesuffix(_BETA)][method]
            known = {(p["in"], p["name"]) for p in operation.get("parameters", [])}
            added = [p for p in twin.get("parameters", []) if (p["in"], p["name"]) not in known]
            switch = {"name": "beta", "in": "query", "schema": {"type": "boolean"}}
            operation["parameters"] = [*operation.get("parameters", []), switch, *added]
            operation["x-beta"] = {
                key: twin[key] for key in ("operationId", "requestBody", "responses") if key in twin
            }


class _Dumper(yaml.CSafeDumper):
    """YAML dumper that writes repeated nodes in full: anchors would depend on object identity."""

    def ignore_aliases(self, data: object) -> bool:
        return True
