"""Builds `openapi/openapi.yaml` from OpenAI's published document, without its prose.

Every path, type, bound, default and enum is kept. A key is dropped by its position, not by its
name: `description` is prose beside `type`, and a property under `properties`. A path that ends with
`?beta=true` is folded into the path without it. Everything whose order has no meaning is sorted:
the same facts give the same bytes, and the difference of two releases is short.
"""

import json
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
_SETS = frozenset({"required", "enum", "type", "anyOf", "oneOf", "allOf", "parameters"})
_PARTS = ("openapi", "info", "servers", "security", "tags", "paths", "webhooks", "components")
_PHRASES = {str(status.value): status.phrase for status in HTTPStatus}
_INFO = ("title", "version", "license")
_BETA = "?beta=true"
_BETA_KEY = "x-beta"
_HEADER = """\
# Written by `llm-backend contract update`; do not edit. Departures belong into overlay.yaml.
#
# The facts of {title} {version}: names, types, bounds, defaults and structure, without prose.
# The document it was taken from is Copyright (c) OpenAI (https://openai.com) and under the MIT
# License, whose text stands in openapi/README.md.
"""


class DocumentError(ValueError):
    """Raised if a source is not an OpenAPI document; the message is a sentence."""


def build_contract(source: str, target: Path) -> Mapping[str, JsonValue]:
    """Writes the document at `source`, a path or an http(s) URL, without prose to `target`.

    Returns the written document. The same facts give the same bytes, in any order. Raises
    `DocumentError`.
    """
    facts = facts_of(read_document(source))
    target.write_text(dump_facts(facts), encoding="utf-8")
    return facts


def dump_facts(facts: Mapping[str, JsonValue]) -> str:
    """Returns facts as the text of `openapi.yaml`."""
    head = _HEADER.format(title=facts["info"]["title"], version=facts["info"]["version"])
    body = yaml.dump(facts, Dumper=FactsDumper, sort_keys=False, allow_unicode=True, width=100)
    return head + body


def facts_of(document: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Returns the document without prose and sorted, with the `?beta=true` paths folded in."""
    facts: dict[str, JsonValue] = {
        "openapi": document["openapi"],
        "info": {key: document["info"][key] for key in _INFO if key in document["info"]},
    }
    for key, value in document.items():
        if key not in facts and not key.startswith("x-"):
            facts[key] = _name_refs(value) if key in _NAMED else _facts(value)
    _describe_responses(facts)
    _fold_beta_twins(facts["paths"])
    return sort_facts(facts)


def sort_facts(facts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Returns facts with everything sorted whose order has no meaning."""
    return {key: _sort(facts[key], is_map=key in _NAMED) for key in sorted(facts, key=_rank)}


def read_document(source: str) -> dict[str, JsonValue]:
    """Reads and parses the document at `source`. Raises `DocumentError`."""
    return parse_document(read_source(source), source)


def read_source(source: str) -> bytes:
    """Reads the bytes at `source`, a path or an http(s) URL. Raises `DocumentError`."""
    try:
        if source.startswith(("http://", "https://")):
            with urlopen(source, timeout=60) as response:  # noqa: S310 # http or https, as checked
                return bytes(response.read())
        return Path(source).read_bytes()
    except OSError as error:
        raise DocumentError(f"{source} cannot be read: {error}.") from error


def parse_document(text: bytes, source: str) -> dict[str, JsonValue]:
    """Parses an OpenAPI document in YAML or JSON. Raises `DocumentError`."""
    try:
        is_json = text.lstrip().startswith(b"{")  # YAML reads some of JSON's numbers as text
        document = json.loads(text) if is_json else yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"{source} is neither YAML nor JSON: {error}.") from error
    parts = {"openapi": str, "info": dict, "paths": dict, "components": dict}
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), kind) for key, kind in parts.items()
    ):
        raise DocumentError(f"{source} is not an OpenAPI document: it needs {', '.join(parts)}.")
    if not {"title", "version"} <= document["info"].keys():
        raise DocumentError(f"{source} has no title or no version in its `info`.")
    return document


def _facts(node: JsonValue) -> JsonValue:
    if isinstance(node, list):
        return [_facts(item) for item in node]
    if not isinstance(node, dict):
        return node
    facts: dict[str, JsonValue] = {}
    for key, value in node.items():
        if key in _PROSE or (key.startswith("x-") and key != _BETA_KEY):
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


def _rank(key: str) -> tuple[int, str]:
    """Returns the sort key of a part of the document: the usual order, then by name."""
    return _PARTS.index(key) if key in _PARTS else len(_PARTS), key


def _sort(node: JsonValue, *, is_map: bool = False) -> JsonValue:
    """Returns a node with its keys sorted, and the lists that are sets. `is_map`: the keys are
    names, not keywords."""
    if isinstance(node, list):
        return [_sort(item) for item in node]
    if not isinstance(node, dict):
        return node
    result: dict[str, JsonValue] = {}
    for key in sorted(node):
        value = node[key]
        if not is_map and key in {"default", "const"}:
            result[key] = value
            continue
        result[key] = _sort(value, is_map=not is_map and key in _NAMED)
        if not is_map and key in _SETS and isinstance(value, list):
            result[key].sort(key=lambda item: json.dumps(item, sort_keys=True))
    return result


def _describe_responses(facts: Mapping[str, JsonValue]) -> None:
    """Gives each response the description that OpenAPI requires: the phrase of its status, or its
    key, such as `default` or `4XX`."""
    for name, response in facts["components"].get("responses", {}).items():
        response["description"] = name
    for item in [*facts["paths"].values(), *facts.get("webhooks", {}).values()]:
        operations = [item[method] for method in METHODS if method in item]
        for operation in [*operations, *(each.get(_BETA_KEY, {}) for each in operations)]:
            for status, response in operation.get("responses", {}).items():
                if "$ref" not in response:
                    response["description"] = _PHRASES.get(status, status)


def _fold_beta_twins(paths: dict[str, JsonValue]) -> None:
    """Moves each operation of `path?beta=true` under `x-beta` of the same operation of `path`."""
    for path in [path for path in paths if path.endswith(_BETA)]:
        for method, twin in paths.pop(path).items():
            operation = paths[path.removesuffix(_BETA)][method]
            known = {(p["in"], p["name"]) for p in operation.get("parameters", [])}
            added = [p for p in twin.get("parameters", []) if (p["in"], p["name"]) not in known]
            switch = {"name": "beta", "in": "query", "schema": {"type": "boolean"}}
            operation["parameters"] = [*operation.get("parameters", []), switch, *added]
            operation[_BETA_KEY] = {
                key: twin[key] for key in ("operationId", "requestBody", "responses") if key in twin
            }


class _Loader(yaml.CSafeLoader):
    """YAML loader that reads dates as text, because JSON has no dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012 # declared so by its base
        first: [
            (tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"
        ]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


class FactsDumper(yaml.CSafeDumper):
    """YAML dumper that repeats nodes in full, because anchors depend on object identity."""

    def ignore_aliases(self, data: object) -> bool:
        return True
