"""Conditional keywords: `not`, `if`, `oneOf`, and `dependent...`. Each is rewritten to further
schemas of the same value, in the client's keywords; None if that is not possible."""

from collections.abc import Iterator

from llm_backend.backends.local.schemas.kinds import Schema
from llm_backend.backends.local.schemas.node import Node, Whole
from llm_backend.json_types import JsonValue

__all__ = ["CONDITIONS", "conditions", "exclusive"]

CONDITIONS = frozenset({
    "not", "if", "dependencies", "dependentRequired", "dependentSchemas",
})  # fmt: skip
_EXCLUSIVE_MOST = 40  # limit of branches that are compared pairwise
_PARTED_MOST = 12
_WAYS_MOST = 8


def conditions(whole: Whole, node: Node) -> Iterator[tuple[str, JsonValue]]:
    """Yields further schemas for the node's value, with the keywords that they come from."""
    schema: Schema = node.schema
    if "not" in schema:
        ways = whole.logic.negated(schema["not"], node.base, whole.facets(node))
        yield "not", _any(node, ways)
    if "if" in schema and ("then" in schema or "else" in schema):
        yield "if", _chosen(whole, node)
    for keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        for name, needs in schema.get(keyword, {}).items():
            yield keyword, _depending(whole, node, name, needs)


def exclusive(whole: Whole, node: Node) -> list[JsonValue]:
    """Rewrites the branches of a `oneOf` to those of an `anyOf`; widens if that is not possible."""
    branches: list[JsonValue] = node.schema["oneOf"]
    facets = [whole.logic.facets(one, node.base) for one in branches]
    overlaps: dict[int, list[int]] = {place: [] for place in range(len(branches))}
    if len(branches) > _EXCLUSIVE_MOST:
        whole.widen()
        return branches
    for one in overlaps:
        for other in range(one):
            if not whole.logic.disjoint(facets[one], facets[other]):
                overlaps[one].append(other)
                overlaps[other].append(one)
    if sum(map(len, overlaps.values())) > _PARTED_MOST * 2:
        whole.widen()
        return branches
    return [
        _parted(whole, node, branch, [branches[other] for other in overlaps[place]])
        for place, branch in enumerate(branches)
    ]


def _parted(whole: Whole, node: Node, branch: JsonValue, others: list[JsonValue]) -> JsonValue:
    """Rewrites a branch to exclude the values that are valid by other branches."""
    parts = [branch]
    context = [*whole.facets(node), *whole.logic.facets(branch, node.base)]
    count = 1
    for other in others:
        ways = whole.logic.negated(other, node.base, context)
        count *= len(ways or ())
        if ways is None or count > _WAYS_MOST:
            whole.widen()
            return branch
        parts.append({"anyOf": ways})
    return {"allOf": parts} if others else branch


def _any(node: Node, ways: list[JsonValue] | None) -> JsonValue:
    if ways is None or not node.budget.takes(len(ways)):
        return None
    return ways[0] if len(ways) == 1 else {"anyOf": ways}


def _chosen(whole: Whole, node: Node) -> JsonValue:
    """Rewrites `if` to a choice: `if` and `then`, or not `if` and `else`."""
    schema = node.schema
    condition, then, other = schema["if"], schema.get("then", True), schema.get("else", True)
    ways = whole.logic.negated(condition, node.base, whole.facets(node))
    held = condition if then is True else {"allOf": [condition, then]}
    if ways is None:
        if other is True or not node.budget.takes(2):
            return None
        whole.widen()
        return {"anyOf": [held, other]}
    elses = [one if other is True else {"allOf": [one, other]} for one in ways if one is not False]
    return _any(node, [held, *elses])


def _depending(whole: Whole, node: Node, name: str, needs: JsonValue) -> JsonValue:
    """Rewrites a dependency to a choice: the property is absent, or `needs` holds."""
    held = {"required": needs} if isinstance(needs, list) else needs
    if held is True or needs == []:
        return True
    facets = whole.facets(node)
    given = [one.get("required", ()) for one in facets if isinstance(one, dict)]
    if any(name in names for names in given):
        return held
    if False in whole.logic.property(facets, name):
        return True
    present = {"required": [name]}
    return _any(node, [{"properties": {name: False}}, {"allOf": [present, held]}])
