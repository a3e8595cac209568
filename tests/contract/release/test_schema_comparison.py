"""Differences of two schemas, each of its kind and in the words of its location."""

from typing import Any

import pytest

from llm_backend.contract.release.schema_comparison import SchemaComparison

TEXT = {"type": "string"}
COUNT = {"type": "integer"}
TAGGED = {
    name: {"type": "object", "properties": {"type": {"const": name}, "a": TEXT}} for name in "xy"
}


def object_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (object_of(a=TEXT), object_of(a=TEXT, b=TEXT), ["field.added b"]),
        (object_of(a=TEXT, b=TEXT), object_of(a=TEXT), ["field.removed b"]),
        (object_of(a=TEXT), {**object_of(a=TEXT), "required": ["a"]}, ["field.required a"]),
        ({**object_of(a=TEXT), "required": ["a"]}, object_of(a=TEXT), ["field.optional a"]),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, ["values.removed ", "values.added "]),
        ({"const": "a"}, {"type": "string", "enum": ["a", "b"]}, ["values.added "]),
        (TEXT, {**TEXT, "maxLength": 4}, ["bound.tightened  (maxLength)"]),
        ({**COUNT, "minimum": 4}, {**COUNT, "minimum": 2}, ["bound.loosened  (minimum)"]),
        ({**TEXT, "pattern": "a"}, {**TEXT, "pattern": "b"}, ["keyword.changed  (pattern)"]),
        ({**COUNT, "minimum": "1"}, {**COUNT, "minimum": 1}, ["keyword.changed  (minimum)"]),
        ({**TEXT, "default": "a"}, TEXT, ["keyword.changed  (default)"]),
        (TEXT, {"type": ["string", "null"]}, ["branch.added "]),
        ({"type": ["string", "null"]}, {"anyOf": [TEXT, {"type": "null"}]}, []),
        ({**TEXT, "nullable": True}, {"type": ["null", "string"]}, []),
        ({"oneOf": [TEXT, COUNT]}, {"anyOf": [COUNT, TEXT]}, ["union.rewritten "]),
        ({"anyOf": [TEXT, COUNT]}, {"anyOf": [COUNT]}, ["branch.removed "]),
        ({"type": "array", "items": TEXT}, {"type": "array", "items": COUNT},
         ["branch.removed []", "branch.added []"]),
        ({**object_of(), "additionalProperties": False}, object_of(),
         ["bound.loosened additionalProperties"]),
        ({"allOf": [object_of(a=TEXT), object_of(b=TEXT)]}, object_of(b=TEXT, a=TEXT), []),
        ({"anyOf": list(TAGGED.values())},
         {"anyOf": [TAGGED["x"], {**TAGGED["y"], "required": ["a"]}]}, ["field.required a"]),
    ],
)  # fmt: skip
def test_comparison_names_each_difference(old: Any, new: Any, expected: list[str]) -> None:
    found = SchemaComparison({}, {}).compare(old, new)

    assert [f"{each.kind} {each.path}" for each in found] == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (object_of(a=TEXT), reference("Named")),
        (reference("Named"), reference("Renamed")),
        ({"oneOf": [reference("Named"), TEXT]}, {"oneOf": [reference("Union")]}),
    ],
    ids=["a schema that got a name", "another name", "a union that got a name"],
)
def test_comparison_follows_references(old: Any, new: Any) -> None:
    components: dict[str, Any] = {
        "Named": object_of(a=TEXT), "Renamed": object_of(a=TEXT),
        "Union": {"oneOf": [reference("Renamed"), TEXT]},
    }  # fmt: skip

    assert SchemaComparison(components, components).compare(old, new) == []


def test_comparison_of_recursive_schemas_ends() -> None:
    before: dict[str, Any] = {"Tree": object_of(leaves={"items": reference("Tree")})}
    after: dict[str, Any] = {"Node": object_of(leaves={"items": reference("Node")}, a=TEXT)}

    found = SchemaComparison(before, after).compare(reference("Tree"), reference("Node"))

    assert [(str(each.kind), each.path) for each in found] == [("field.added", "a")]
