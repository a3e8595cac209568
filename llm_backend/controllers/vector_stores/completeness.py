"""Points of files that are being taken in: they say so, and a search can leave them out (pure)."""

from collections.abc import Mapping

from llm_backend.search import Attribute, Comparison, Condition, Every

__all__ = ["incomplete", "only_complete"]

_INCOMPLETE = "\0incomplete"  # an attribute that no client can give: theirs have no NUL


def incomplete(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The attributes of a point whose file is not complete yet."""
    return {**attributes, _INCOMPLETE: True}


def only_complete(condition: Condition | None) -> Condition:
    """The condition, and that the point's file was complete."""
    complete = Comparison(key=_INCOMPLETE, operator="ne", value=True)
    return complete if condition is None else Every(conditions=[complete, condition])
