"""Marks points of files whose ingestion is incomplete, and filters them from searches (pure)."""

from collections.abc import Mapping

from llm_backend.search import AllOf, Attribute, Comparison, Condition

_INCOMPLETE = "\0incomplete"  # clients cannot set it: their attributes have no NUL


def mark_incomplete(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Returns the attributes with the mark of an incomplete file."""
    return {**attributes, _INCOMPLETE: True}


def only_complete(condition: Condition | None) -> Condition:
    """Returns the condition, restricted to points of complete files."""
    complete = Comparison(key=_INCOMPLETE, operator="ne", value=True)
    return complete if condition is None else AllOf(conditions=[complete, condition])
