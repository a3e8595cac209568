"""Filter conditions in Qdrant's terms, shared by its embedded engine and its client (pure).

Names of attributes are stored as hexadecimal UTF-8, because Qdrant reads dots, brackets and quotes
in a name as a path. Numbers are compared as ranges, because Qdrant matches only integers. Booleans
are stored as words, and every text begins with a mark, so that it differs from them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_backend.json_types import JsonObject
from llm_backend.search.base import AllOf, Attribute, Comparison, Condition

DOCUMENT, ATTRIBUTES = "document", "attributes"


class FilterBuilder:
    """Builds filters from a library's own classes."""

    def all_of(self, conditions: Sequence[Any]) -> Any:
        """All conditions hold."""
        raise NotImplementedError

    def one_of(self, conditions: Sequence[Any]) -> Any:
        """At least one condition holds."""
        raise NotImplementedError

    def none_of(self, conditions: Sequence[Any]) -> Any:
        """No condition holds."""
        raise NotImplementedError

    def equals(self, key: str, value: str) -> Any:
        """The field has this value."""
        raise NotImplementedError

    def within(self, key: str, **bounds: float) -> Any:
        """The field is within `gt`, `gte`, `lt`, `lte`."""
        raise NotImplementedError


def payload_of(document: str, attributes: Mapping[str, Attribute]) -> JsonObject:
    """Returns the payload of a point: all but its vectors."""
    named = {key.encode().hex(): _payload_value(value) for key, value in attributes.items()}
    return {DOCUMENT: document, ATTRIBUTES: named}


def filter_of(condition: Condition, builder: FilterBuilder) -> Any:
    """Converts a condition to a filter."""
    if isinstance(condition, Comparison):
        return _comparison(condition, builder)
    parts = [filter_of(one, builder) for one in condition.conditions]
    return builder.all_of(parts) if isinstance(condition, AllOf) else builder.one_of(parts)


def _comparison(comparison: Comparison, builder: FilterBuilder) -> Any:
    key = f"{ATTRIBUTES}.{comparison.key.encode().hex()}"
    value, operator = comparison.value, comparison.operator
    if operator in ("eq", "ne", "in", "nin"):
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        same = [_equals(key, one, builder) for one in values]
        return builder.none_of(same) if operator in ("ne", "nin") else builder.one_of(same)
    assert isinstance(value, int | float), "only numbers are greater or less"
    return builder.all_of([builder.within(key, **{operator: float(value)})])


def _equals(key: str, value: Attribute, builder: FilterBuilder) -> Any:
    payload_value = _payload_value(value)
    if isinstance(payload_value, str):
        return builder.equals(key, payload_value)
    return builder.within(key, gte=payload_value, lte=payload_value)


def _payload_value(value: Attribute) -> str | float:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"={value}" if isinstance(value, str) else float(value)
