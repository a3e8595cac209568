"""Rewrites the conditional keywords `not`, `if`, `oneOf` and `dependent...` to other schemas of the
same value, in the client's keywords; to None if that is not possible."""

from collections.abc import Iterator

from llm_backend.backends.schemas.keywords import Schema
from llm_backend.backends.schemas.node import Lowering, Node
from llm_backend.json_types import JsonValue

CONDITIONS = frozenset({
    "not", "if", "dependencies", "dependentRequired", "dependentSchemas",
})  # fmt: skip
_BRANCHES_LIMIT = 40  # branches of a `oneOf`, which are compared pairwise
_OVERLAPS_LIMIT = 12  # pairs of branches with common values
_ALTERNATIVES_LIMIT = 8  # schemas by which a branch excludes the others


def lower_conditions(lowering: Lowering, node: Node) -> Iterator[tuple[str, JsonValue]]:
    """Yields other schemas for the node's value, each after the keyword that it comes from."""
    schema: Schema = node.schema
    if "not" in schema:
        negations = lowering.logic.negate(schema["not"], node.base, lowering.conjuncts(node))
        yield "not", _any_of(node, negations)
    if "if" in schema and ("then" in schema or "else" in schema):
        yield "if", _lower_if(lowering, node)
    for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        for name, needs in schema.get(keyword, {}).items():
            yield keyword, _lower_dependency(lowering, node, name, needs)


def make_exclusive(lowering: Lowering, node: Node) -> list[JsonValue]:
    """Rewrites the branches of a `oneOf` to those of an `anyOf`; widens if that is not possible."""
    branches: list[JsonValue] = node.schema["oneOf"]
    conjuncts = [lowering.logic.conjuncts(one, node.base) for one in branches]
    overlaps: dict[int, list[int]] = {index: [] for index in range(len(branches))}
    if len(branches) > _BRANCHES_LIMIT:
        lowering.mark_wider()
        return branches
    for one in overlaps:
        for other in range(one):
            if not lowering.logic.are_disjoint(conjuncts[one], conjuncts[other]):
                overlaps[one].append(other)
                overlaps[other].append(one)
    if sum(map(len, overlaps.values())) > _OVERLAPS_LIMIT * 2:
        lowering.mark_wider()
        return branches
    return [
        _exclude_branches(lowering, node, branch, [branches[other] for other in overlaps[index]])
        for index, branch in enumerate(branches)
    ]


def _exclude_branches(
    lowering: Lowering, node: Node, branch: JsonValue, others: list[JsonValue]
) -> JsonValue:
    """Rewrites a branch to exclude values for which other branches are valid."""
    parts = [branch]
    context = [*lowering.conjuncts(node), *lowering.logic.conjuncts(branch, node.base)]
    count = 1
    for other in others:
        alternatives = lowering.logic.negate(other, node.base, context)
        count *= len(alternatives or ())
        if alternatives is None or count > _ALTERNATIVES_LIMIT:
            lowering.mark_wider()
            return branch
        parts.append({"anyOf": alternatives})
    return {"allOf": parts} if others else branch


def _any_of(node: Node, alternatives: list[JsonValue] | None) -> JsonValue:
    if alternatives is None or not node.budget.spend(len(alternatives)):
        return None
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _lower_if(lowering: Lowering, node: Node) -> JsonValue:
    """Rewrites `if` to a choice: `if` and `then`, or not `if` and `else`."""
    schema = node.schema
    condition, then, other = schema["if"], schema.get("then", True), schema.get("else", True)
    negations = lowering.logic.negate(condition, node.base, lowering.conjuncts(node))
    consequence = condition if then is True else {"allOf": [condition, then]}
    if negations is None:
        if other is True or not node.budget.spend(2):
            return None
        lowering.mark_wider()
        return {"anyOf": [consequence, other]}
    elses = [
        one if other is True else {"allOf": [one, other]} for one in negations if one is not False
    ]
    return _any_of(node, [consequence, *elses])


def _lower_dependency(lowering: Lowering, node: Node, name: str, needs: JsonValue) -> JsonValue:
    """Rewrites a dependency to a choice: the property is absent, or `needs` holds."""
    condition = {"required": needs} if isinstance(needs, list) else needs
    if condition is True or needs == []:
        return True
    conjuncts = lowering.conjuncts(node)
    required = [one.get("required", ()) for one in conjuncts if isinstance(one, dict)]
    if any(name in names for names in required):
        return condition
    if False in lowering.logic.property_schemas(conjuncts, name):
        return True
    present = {"required": [name]}
    return _any_of(node, [{"properties": {name: False}}, {"allOf": [present, condition]}])
