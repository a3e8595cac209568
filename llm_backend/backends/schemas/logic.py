"""Logic of JSON schemas: disjointness and negation.

Both are conservative: two schemas are disjoint only if that is easy to prove, and `negate`
returns None if no schema expresses the negation.
"""

from collections.abc import Iterator, Sequence

from llm_backend.backends.schemas.budget import SchemaBudget
from llm_backend.backends.schemas.json_values import are_equal, distinct, type_of_value
from llm_backend.backends.schemas.keywords import (
    TYPES,
    Schema,
    is_number,
    keywords_of,
    types_of,
)
from llm_backend.backends.schemas.negated_keywords import (
    NEGATED_BOUNDS,
    Alternatives,
    negate_bound,
    schemas_of_other_types,
    schemas_of_other_values,
)
from llm_backend.backends.schemas.numbers import integers_within
from llm_backend.backends.schemas.references import References
from llm_backend.json_types import JsonValue

_DEPTH = 6
_CONJUNCTS_LIMIT = 64
_ALTERNATIVES_LIMIT = 24
_CHOICE_KEYWORDS = frozenset({"type", "enum", "const"})
_INTEGER_KEYWORDS = frozenset({
    "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
})  # fmt: skip
_RANGES = (
    ("number", "minimum", "maximum"),
    ("string", "minLength", "maxLength"),
    ("array", "minItems", "maxItems"),
)

Conjuncts = Sequence[JsonValue]


class Logic:
    """Logic of the schemas of one document, whose references it follows, within a budget."""

    def __init__(self, references: References, budget: SchemaBudget) -> None:
        self._references = references
        self._budget = budget

    def _is_out_of_steps(self) -> bool:
        """Counts a step; returns True if the budget of steps is used up."""
        self._budget.steps -= 1
        return self._budget.steps < 0

    def conjuncts(self, schema: JsonValue, base: str = "") -> list[JsonValue]:
        """Returns the schemas that a value must satisfy, all of them: the schema itself, and those
        of its `$ref` and `allOf`."""
        found: list[JsonValue] = []
        unread = [(schema, base, 0)]
        while unread and len(found) < _CONJUNCTS_LIMIT and not self._is_out_of_steps():
            one, its_base, depth = unread.pop()
            found.append(one)
            if not isinstance(one, dict) or depth > _DEPTH:
                continue
            if isinstance(one.get("$ref"), str):
                target = self._references.resolve(one["$ref"], its_base)
                if target is not None:
                    unread.append((target.schema, target.base, depth + 1))
            unread += [(part, its_base, depth + 1) for part in one.get("allOf", ())]
        return found

    def is_unsatisfiable(self, schema: JsonValue, base: str) -> bool:
        """Returns True if it is proved that no value is valid by the schema."""
        if not isinstance(schema, dict) or "not" not in schema:
            return schema is False
        return self.negate(schema["not"], base, ()) == [False]

    def are_disjoint(self, one: Conjuncts, other: Conjuncts, depth: int = 0) -> bool:
        """Returns True if it is proved that no value is valid by both."""
        if False in one or False in other:
            return True
        if depth > _DEPTH or self._is_out_of_steps():
            return False
        if not self._types_of_all(one) & self._types_of_all(other):
            return True
        first, second = self.finite_values(one), self.finite_values(other)
        if first is not None and second is not None:
            return not any(are_equal(value, two) for value in first for two in second)
        return (
            self._are_disjoint_by_branches(one, other, depth)
            or self._are_disjoint_by_branches(other, one, depth)
            or self._are_disjoint_by_range(one, other)
            or self._are_disjoint_by_properties(one, other, depth)
        )

    def _types_of_all(self, conjuncts: Conjuncts) -> frozenset[str]:
        types = frozenset(TYPES)
        for conjunct in conjuncts:
            if isinstance(conjunct, dict):
                types &= types_of(conjunct)
                values = _own_values(conjunct)
                if values is not None:
                    types &= frozenset(type_of_value(value) for value in values)
        return types

    def finite_values(self, conjuncts: Conjuncts) -> list[JsonValue] | None:
        """Returns the only values that may satisfy all of these; None if unknown."""
        lists = [_own_values(conjunct) for conjunct in conjuncts if isinstance(conjunct, dict)]
        known = [values for values in lists if values is not None]
        if not known:
            types = self._types_of_all(conjuncts)
            return [False, True] if types == {"boolean"} else None
        first, *others = known
        types = self._types_of_all(conjuncts)
        return [
            value
            for value in first
            if type_of_value(value) in types
            and all(any(are_equal(value, two) for two in other) for other in others)
        ]

    def valid_values(
        self, schema: JsonValue, base: str, limit: int, depth: int = 0
    ) -> list[JsonValue] | None:
        """Returns all values that are valid by a schema, each once. None if they are more than
        `limit`, or if the schema is neither a choice of constants, nor a range of integers, nor an
        `anyOf` of these."""
        if not isinstance(schema, dict) or depth > _DEPTH or self._is_out_of_steps():
            return [] if schema is False else None
        keywords = keywords_of(schema)
        if keywords == {"$ref"}:
            target = self._references.resolve(str(schema["$ref"]), base)
            if target is None:
                return None
            return self.valid_values(target.schema, target.base, limit, depth + 1)
        if keywords != {"anyOf"}:
            return self._plain_values(schema, limit)
        parts = [self.valid_values(one, base, limit, depth + 1) for one in schema["anyOf"]]
        return (
            None
            if None in parts
            else distinct((one for part in parts for one in part or ()), limit)
        )

    def _plain_values(self, schema: Schema, limit: int) -> list[JsonValue] | None:
        keywords = keywords_of(schema)
        if _is_integer(schema) and keywords <= _INTEGER_KEYWORDS:
            return integers_within(schema, limit)
        if keywords - _CHOICE_KEYWORDS:
            return None
        values = self.finite_values([{keyword: schema[keyword]} for keyword in keywords])
        has_fractions = "number" in schema.get("type", TYPES)
        return values and distinct(
            (one for one in values if has_fractions or not isinstance(one, float)), limit
        )

    def _are_disjoint_by_branches(self, one: Conjuncts, other: Conjuncts, depth: int) -> bool:
        for conjunct in one:
            for keyword in ("anyOf", "oneOf"):
                branches = conjunct.get(keyword) if isinstance(conjunct, dict) else None
                if branches and len(branches) <= _ALTERNATIVES_LIMIT and all(
                    self.are_disjoint(self.conjuncts(part), other, depth + 1) for part in branches
                ):  # fmt: skip
                    return True
        return False

    def _are_disjoint_by_range(self, one: Conjuncts, other: Conjuncts) -> bool:
        types = self._types_of_all(one) & self._types_of_all(other)
        return any(
            types == {kind}
            and (
                _lower_bound(one, low) > _upper_bound(other, high)
                or _lower_bound(other, low) > _upper_bound(one, high)
            )
            for kind, low, high in _RANGES
        )

    def _are_disjoint_by_properties(self, one: Conjuncts, other: Conjuncts, depth: int) -> bool:
        if self._types_of_all(one) & self._types_of_all(other) != {"object"}:
            return False
        names = dict.fromkeys([*_required_names(one), *_required_names(other)])
        return any(
            self.are_disjoint(
                self.property_schemas(one, name), self.property_schemas(other, name), depth + 1
            )
            for name in names
        )

    def property_schemas(self, conjuncts: Conjuncts, name: str) -> list[JsonValue]:
        """Returns the schemas that a property must satisfy."""
        found: list[JsonValue] = []
        for conjunct in conjuncts:
            if not isinstance(conjunct, dict):
                continue
            properties = conjunct.get("properties", {})
            if name in properties:
                found += self.conjuncts(properties[name])
            elif conjunct.get("additionalProperties") is False and not conjunct.get(
                "patternProperties"
            ):
                found.append(False)
        return found

    def negate(
        self, schema: JsonValue, base: str, context: Conjuncts, depth: int = 0
    ) -> Alternatives | None:
        """Returns alternative schemas: every value valid by `context` and not by `schema` is valid
        by one of them. Returns None if no schema expresses the negation."""
        if schema is False:
            return [True]
        if schema is True or not keywords_of(schema):
            return [False]
        if depth > _DEPTH or self._is_out_of_steps():
            return None
        found: Alternatives = []
        for keyword in sorted(keywords_of(schema)):
            part = self._negate_keyword(keyword, schema, base, context, depth)
            if part is None:
                return None
            found += part
        if len(found) > _ALTERNATIVES_LIMIT:
            return None
        return [one for one in found if one is not False] or [False]

    def _negate_keyword(
        self, keyword: str, schema: Schema, base: str, context: Conjuncts, depth: int
    ) -> Alternatives | None:
        value = schema[keyword]
        if keyword in NEGATED_BOUNDS and is_number(value):
            return negate_bound(keyword, value)
        match keyword:
            case "type":
                are_integers = any(_is_integer(conjunct) for conjunct in context)
                return schemas_of_other_types(
                    value, self._types_of_all(context), are_integers=are_integers
                )
            case "required":
                return [{"type": "object", "properties": {name: False}} for name in value]
            case "const" | "enum":
                return self._schemas_of_other_values(
                    [value] if keyword == "const" else value, context
                )
            case "not":
                return [value]
        return self._negate_subschemas(keyword, value, base, context, depth)

    def _negate_subschemas(
        self, keyword: str, value: JsonValue, base: str, context: Conjuncts, depth: int
    ) -> Alternatives | None:
        match keyword:
            case "properties":
                return self._negate_properties(value, base, context, depth)
            case "anyOf" | "allOf":
                parts = [self.negate(one, base, context, depth + 1) for one in value]
                if None in parts:
                    return None
                if keyword == "anyOf":
                    return [{"allOf": [{"anyOf": part} for part in parts]}]
                return [one for part in parts for one in part or ()]
            case "$ref":
                target = self._references.resolve(value, base)
                if target is None:
                    return None
                return self.negate(target.schema, target.base, context, depth + 1)
        return None

    def _negate_properties(
        self, properties: Schema, base: str, context: Conjuncts, depth: int
    ) -> Alternatives | None:
        found: Alternatives = []
        for name, schema in properties.items():
            inner = self.property_schemas(context, name)
            parts = self.negate(schema, base, inner, depth + 1)
            if parts is None:
                return None
            found += [
                {"type": "object", "required": [name], "properties": {name: part}}
                for part in parts
                if part is not False
            ]
        return found or [False]

    def _schemas_of_other_values(
        self, values: Sequence[JsonValue], context: Conjuncts
    ) -> Alternatives | None:
        known = self.finite_values(context)
        if known is not None:
            remaining = [one for one in known if not any(are_equal(one, two) for two in values)]
            return [{"enum": remaining}] if remaining else [False]
        types = self._types_of_all(context)
        found: Alternatives = []
        for kind in sorted(types):
            own = [value for value in values if type_of_value(value) == kind]
            other = schemas_of_other_values(kind, own)
            if other is None:
                return None
            found += other
        return found


def _is_integer(conjunct: JsonValue) -> bool:
    return isinstance(conjunct, dict) and conjunct.get("type") in ("integer", ["integer"])


def _own_values(schema: Schema) -> list[JsonValue] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _required_names(conjuncts: Conjuncts) -> Iterator[str]:
    for conjunct in conjuncts:
        if isinstance(conjunct, dict):
            yield from (name for name in conjunct.get("required", ()) if isinstance(name, str))


def _lower_bound(conjuncts: Conjuncts, keyword: str) -> float:
    return max(_keyword_values(conjuncts, keyword), default=float("-inf"))


def _upper_bound(conjuncts: Conjuncts, keyword: str) -> float:
    return min(_keyword_values(conjuncts, keyword), default=float("inf"))


def _keyword_values(conjuncts: Conjuncts, keyword: str) -> list[float]:
    return [
        conjunct[keyword]
        for conjunct in conjuncts
        if isinstance(conjunct, dict) and keyword in conjunct
    ]
