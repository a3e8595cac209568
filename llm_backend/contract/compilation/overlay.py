"""OpenAPI Overlay 1.0.0: applies the actions of an overlay to a document.

Beyond the standard: `x-rename` renames keys of the selected objects, `x-allow-null` lets the
selected schemas take `null`. An action that selects nothing is an error, because its target has
disappeared from the document.
"""

from collections.abc import Mapping
from copy import deepcopy

from jsonpath import JSONPathEnvironment, JSONPathMatch

from llm_backend.json_types import JsonValue

_JSONPATH = JSONPathEnvironment(strict=True)


class OverlayError(ValueError):
    """Raised if an action cannot be applied; the message names its target."""


def apply_overlay(
    document: Mapping[str, JsonValue], overlay: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Returns a copy of the document with every action of the overlay applied, in order. Raises
    `OverlayError`, with a line for each action that cannot be applied."""
    result: dict[str, JsonValue] = deepcopy(dict(document))
    errors = []
    for action in overlay["actions"]:
        try:
            apply_action(result, action)
        except OverlayError as error:
            errors.append(str(error))
    if errors:
        raise OverlayError("\n".join(errors))
    return result


def apply_action(document: dict[str, JsonValue], action: Mapping[str, JsonValue]) -> None:
    """Applies one action in place."""
    matches = list(_JSONPATH.finditer(action["target"], document))
    if not matches:
        raise OverlayError(f"The overlay's target {action['target']} selects nothing.")
    for match in reversed(matches):  # removing an item of an array moves the items after it
        _apply(action, match)


def _apply(action: Mapping[str, JsonValue], match: JSONPathMatch) -> None:
    node = match.obj
    if action.get("remove"):
        _remove(match)
    elif "x-rename" in action:
        _rename(node, action["x-rename"])
    elif action.get("x-allow-null"):
        _allow_null(node)
    elif isinstance(node, list):
        node.append(deepcopy(action["update"]))
    elif isinstance(node, dict) and isinstance(action["update"], dict):
        _merge(node, action["update"])
    else:
        raise OverlayError(f"The overlay's target {action['target']} selects a plain value.")


def _remove(match: JSONPathMatch) -> None:
    parent = match.parent
    assert parent is not None, "the root of a document cannot be removed"
    del parent.obj[match.parts[-1]]


def _rename(node: dict[str, JsonValue], names: Mapping[str, str]) -> None:
    renamed = {names.get(key, key): value for key, value in node.items()}
    node.clear()
    node.update(renamed)


def _allow_null(schema: dict[str, JsonValue]) -> None:
    """Adds `null` to the accepted types of a schema, and drops OpenAPI 3.0's `nullable`."""
    schema.pop("nullable", None)
    if isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    elif "anyOf" in schema:
        schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
    elif schema:
        rest = dict(schema)
        schema.clear()
        schema["anyOf"] = [rest, {"type": "null"}]


def _merge(node: dict[str, JsonValue], update: Mapping[str, JsonValue]) -> None:
    """Merges objects key by key; any other value, arrays included, is replaced."""
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(node.get(key), dict):
            _merge(node[key], value)
        else:
            node[key] = deepcopy(value)
