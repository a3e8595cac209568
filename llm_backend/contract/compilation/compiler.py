"""Compiles `openapi/` into the JSON files that the server loads at startup.

Three files, so that startup parses only the part it needs:

    start.json     the table of operations and the view that Connexion routes by
    openapi.json   the whole document, as it is served and as validators read it
    index.json     position of each operation and schema in openapi.json: [offset, length] bytes

The same sources give the same bytes; `digest_of` detects compiled files that are out of date. Files
are replaced and never changed: a running server keeps reading those that it has opened.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import orjson
import yaml

from llm_backend.contract.compilation.builder import METHODS
from llm_backend.contract.compilation.fingerprint import FORMAT, SOURCES, digest_of
from llm_backend.contract.compilation.overlay import apply_overlay
from llm_backend.json_types import JsonValue

FREQUENT_PATHS = frozenset({"/chat/completions", "/completions", "/embeddings", "/responses"})


class ContractError(ValueError):
    """Raised if the files under `openapi/` contradict each other; the message names the file or the
    reference."""


def compile_contract(openapi_dir: Path, target: Path) -> None:
    """Writes the compiled form of `openapi_dir` into the directory `target`.

    Raises `ContractError` or `OverlayError` if the sources are inconsistent.
    """
    contract, sdk, overlay, extensions, answers = (_load(openapi_dir / name) for name in SOURCES)
    whole = extend_document(contract, sdk, "sdk.yaml")
    document = extend_document(apply_overlay(whole, overlay), extensions, "extensions.yaml")
    _name_tags(document)
    _check_references(document)
    operations = _operations(document, answers)
    start = {
        "format": FORMAT,
        "digest": digest_of(openapi_dir),
        "operations": operations,
        "view": _view(document, operations),
    }
    text, index = _slice_document(document)
    target.mkdir(parents=True, exist_ok=True)
    _replace(target / "openapi.json", text)
    _replace(target / "index.json", orjson.dumps(index))
    _replace(target / "start.json", orjson.dumps(start))


def _replace(path: Path, text: bytes) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(text)
    os.replace(partial, path)


def _load(path: Path) -> JsonValue:
    return yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)


def extend_document(
    document: Mapping[str, JsonValue], added: Mapping[str, JsonValue], source: str
) -> dict[str, JsonValue]:
    """Returns the document with the tags, operations and components of another one.

    Raises `ContractError` if both have an operation or a component; `source` names the other one.
    """
    whole = {**document, "tags": [*document["tags"], *added.get("tags", ())]}
    whole["paths"] = {path: dict(item) for path, item in document["paths"].items()}
    for path, item in added["paths"].items():
        _join(whole["paths"].setdefault(path, {}), item, source, f" of {path}")
    for part in ("components", "webhooks", "x-events"):
        whole[part] = {kind: dict(each) for kind, each in document.get(part, {}).items()}
        for kind, each in added.get(part, {}).items():
            _join(whole[part].setdefault(kind, {}), each, source)
    return whole


def _name_tags(document: dict[str, JsonValue]) -> None:
    """Adds the tags of operations that the document does not list."""
    named = {tag["name"] for tag in document["tags"]}
    used = [o["tags"][0] for _, _, o in _each_operation(document)]
    document["tags"] += [{"name": tag} for tag in dict.fromkeys(used) if tag not in named]


def _join(
    ours: dict[str, JsonValue], theirs: Mapping[str, JsonValue], source: str, where: str = ""
) -> None:
    if collisions := ours.keys() & theirs.keys():
        raise ContractError(f"{source} redefines {', '.join(sorted(collisions))}{where}.")
    ours.update(theirs)


def _check_references(document: Mapping[str, JsonValue]) -> None:
    for reference in set(re.findall(rb'"\$ref":"(.*?)"', orjson.dumps(document))):
        node: JsonValue = document
        for part in reference.decode().removeprefix("#/").split("/"):
            node = node.get(part) if isinstance(node, dict) else None
        if node is None:
            raise ContractError(
                f"The document refers to {reference.decode()}, which does not exist."
            )


def _each_operation(
    document: Mapping[str, JsonValue],
) -> Iterator[tuple[str, str, Mapping[str, JsonValue]]]:
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def _operations(
    document: Mapping[str, JsonValue], handlers: Mapping[str, JsonValue]
) -> list[dict[str, JsonValue]]:
    """Builds the table of operations: one row for each, in the document's order."""
    rows = []
    for path, method, operation in _each_operation(document):
        operation_id = operation["operationId"]
        if operation_id not in handlers:
            raise ContractError(f"operations.yaml has no entry for {operation_id}.")
        if "summary" not in operation:
            raise ContractError(f"overlay.yaml has no summary for {operation_id}.")
        handler = handlers[operation_id]
        is_local = isinstance(handler, dict)
        rows.append(
            {
                "operation_id": operation_id,
                "method": method.upper(),
                "path": path,
                "tag": operation["tags"][0],
                "summary": operation["summary"],
                "answered_by": "local" if is_local else handler,
                "controller": handler["local"] if is_local else None,
                "is_public": operation.get("security") == [],
                "administers": any(
                    "AdminApiKeyAuth" in one for one in operation.get("security", ())
                ),
            }
        )
    named = [row["operation_id"] for row in rows]
    if leftovers := [name for name in handlers if named.count(name) != 1]:
        raise ContractError(f"operations.yaml names {leftovers[0]}, which is not one operation.")
    return rows


def _view(
    document: Mapping[str, JsonValue], rows: Iterable[Mapping[str, JsonValue]]
) -> dict[str, JsonValue]:
    """Builds the OpenAPI 3.0 view for Connexion: paths, methods, operations.

    Routes are matched in this order: the most frequent paths first, then local operations. Among
    paths of one length, fixed segments come before parameters.
    """
    paths: dict[str, dict[str, JsonValue]] = {}
    for row in sorted(rows, key=_routing_order):
        operation = document["paths"][row["path"]][row["method"].lower()]
        paths.setdefault(row["path"], {})[row["method"].lower()] = _route_view(operation)
    return {
        "openapi": "3.0.3",
        "info": {"title": "view", "version": "1"},
        "paths": paths,
    }


def _routing_order(row: Mapping[str, JsonValue]) -> tuple[bool, bool, bool, int, list[bool]]:
    segments = row["path"].split("/")
    are_parameters = [part.startswith("{") for part in segments]
    is_catch_all = row["path"] == "/models/{model}"
    is_rare = row["path"] not in FREQUENT_PATHS
    return is_rare, row["answered_by"] != "local", is_catch_all, -len(segments), are_parameters


def _route_view(operation: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    routed: dict[str, JsonValue] = {
        "operationId": operation["operationId"],
        "responses": {"x-described-elsewhere": {}},
    }
    tails = [p for p in operation.get("parameters", []) if p["schema"].get("format") == "path"]
    if tails:
        routed["parameters"] = tails
    return routed


def _slice_document(
    document: Mapping[str, JsonValue],
) -> tuple[bytes, dict[str, dict[str, tuple[int, int]]]]:
    """Returns the document as JSON, and the offset and length of its operations and schemas."""
    writer = _Writer()
    index: dict[str, dict[str, tuple[int, int]]] = {"operations": {}, "schemas": {}}

    def write_path(item: Mapping[str, JsonValue]) -> None:
        for key in writer.each_key(item):
            where = writer.value(item[key])
            if key in METHODS:
                index["operations"][item[key]["operationId"]] = where

    for key in writer.each_key(document):
        if key == "paths":
            for path in writer.each_key(document["paths"]):
                write_path(document["paths"][path])
        elif key == "components":
            for kind in writer.each_key(document["components"]):
                components = document["components"][kind]
                positions = index.setdefault(kind, {})
                for name in writer.each_key(components):
                    positions[name] = writer.value(components[name])
        else:
            writer.value(document[key])
    return bytes(writer.text), index


class _Writer:
    """JSON writer that returns the offset and length of each value."""

    def __init__(self) -> None:
        self.text = bytearray()

    def each_key(self, node: Mapping[str, JsonValue]) -> Iterator[str]:
        """Writes an object: yields each key, and the caller writes its value."""
        self.text += b"{"
        for position, key in enumerate(node):
            self.text += (b"," if position else b"") + orjson.dumps(key) + b":"
            yield key
        self.text += b"}"

    def value(self, node: JsonValue) -> tuple[int, int]:
        """Writes a value; returns its offset and length."""
        start = len(self.text)
        self.text += orjson.dumps(node)
        return start, len(self.text) - start
