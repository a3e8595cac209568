"""Types of parsed JSON whose fields no generated type names, and objects without nulls."""

from collections.abc import Mapping
from typing import Any, TypeAlias, TypeVar

JsonValue: TypeAlias = Any
"""Any JSON value: an object, a list, a string, a number, a boolean or null."""

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object that its holder may change."""

JsonMapping: TypeAlias = Mapping[str, Any]
"""A JSON object that is only read."""

JsonMappingT = TypeVar("JsonMappingT", bound=JsonMapping)
"""The type of a JSON object that a function returns with other values."""


def without_nulls(fields: JsonMapping) -> JsonObject:
    """Returns the fields that are not null."""
    return {name: value for name, value in fields.items() if value is not None}
