"""Array keywords, rewritten for llguidance."""

from collections.abc import Sequence

from llm_backend.backends.schemas.keywords import Schema, types_of
from llm_backend.backends.schemas.node import Lowering, Node
from llm_backend.backends.schemas.unique_items import alternatives_of_unique_items
from llm_backend.json_types import JsonValue

ARRAY_KEYWORDS = frozenset({
    "items", "prefixItems", "additionalItems", "contains", "minContains", "maxContains",
    "minItems", "maxItems", "uniqueItems", "unevaluatedItems",
})  # fmt: skip
_CONTAINED_LIMIT = 16
_APPLICATORS = {"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas"}


def lower_array(lowering: Lowering, node: Node) -> dict[str, JsonValue]:
    """Rewrites a schema's array keywords."""
    schema: Schema = node.schema
    first, first_name, others, others_name = _items(schema)
    others = _merge_unevaluated(lowering, schema, others)
    lowered: dict[str, JsonValue] = {}
    if first:
        lowered["prefixItems"] = [
            lowering.lower(node.child(one, first_name, index)) for index, one in enumerate(first)
        ]
    if others is not True:
        lowered["items"] = lowering.lower(node.child(others, others_name))
    for keyword in ("minItems", "maxItems"):
        if keyword in schema:
            lowered[keyword] = int(schema[keyword])
    _lower_contains(lowering, node, lowered, others)
    _lower_unique(lowering, node, lowered, [*first, others])
    return lowered


def _items(schema: Schema) -> tuple[list[JsonValue], str, JsonValue, str]:
    """Returns the schemas of the first items, and that of all others, with their keywords."""
    items = schema.get("items", True)
    if isinstance(items, list):
        return items, "items", schema.get("additionalItems", True), "additionalItems"
    return schema.get("prefixItems", []), "prefixItems", items, "items"


def _merge_unevaluated(lowering: Lowering, schema: Schema, others: JsonValue) -> JsonValue:
    unevaluated = schema.get("unevaluatedItems", True)
    if unevaluated in (True, {}) or "items" in schema:
        return others
    if _APPLICATORS & schema.keys() or "contains" in schema:
        lowering.mark_wider()
        return others
    return unevaluated


def _lower_contains(
    lowering: Lowering, node: Node, lowered: dict[str, JsonValue], others: JsonValue
) -> None:
    """Rewrites `contains`: the required items become the first ones."""
    schema = node.schema
    if "contains" not in schema:
        return
    if "maxContains" in schema:
        lowering.mark_wider()
    count = int(schema.get("minContains", 1))
    if not count:
        return
    if "prefixItems" in lowered or count > _CONTAINED_LIMIT:
        lowering.mark_wider()
    else:
        contained = lowering.lower(node.child(schema["contains"], "contains"))
        both = contained if others is True else {"allOf": [lowered["items"], contained]}
        lowered["prefixItems"] = [both] * count
    lowered["minItems"] = max(count, lowered.get("minItems", 0))


def _lower_unique(
    lowering: Lowering,
    node: Node,
    lowered: dict[str, JsonValue],
    schemas: Sequence[JsonValue],
) -> None:
    """Rewrites `uniqueItems` to alternatives if these are few, and limits the number of items to
    that of the possible values."""
    if not node.schema.get("uniqueItems") or "array" not in types_of(node.schema):
        return
    if len(schemas) == 1:
        values = lowering.logic.finite_values(lowering.logic.conjuncts(schemas[0], node.base))
        if values is not None and "prefixItems" not in lowered:
            lowered["maxItems"] = min(len(values), lowered.get("maxItems", len(values)))
    minimum, maximum = lowered.get("minItems", 0), lowered.get("maxItems")
    if maximum is not None and maximum <= 1:
        return
    alternatives = None
    if "contains" not in node.schema:
        alternatives = alternatives_of_unique_items(lowering, node, schemas, minimum, maximum)
    if alternatives is None:
        lowering.mark_wider()
        return
    lowered.clear()
    lowered["allOf"] = [alternatives]
