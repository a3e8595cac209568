"""Node of a schema that is being rewritten, and the interface of the whole rewriting."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from llm_backend.backends.local.schemas.kinds import Path
from llm_backend.backends.local.schemas.logic import Facets, Logic
from llm_backend.json_types import JsonValue

__all__ = ["Budget", "Node", "Whole"]

_CHOICES_MOST = 32  # limit of combinations of one value's conditions: llguidance tries each


@dataclass
class Budget:
    """Budget for combinations of one value's conditions."""

    ways: int = 1

    def takes(self, count: int) -> bool:
        """Returns True if a choice of `count` fits the budget, and counts it then."""
        if self.ways * count > _CHOICES_MOST:
            return False
        self.ways *= count
        return True


@dataclass(frozen=True, kw_only=True)
class Node:
    """One schema: its path, the base URI of its references, and in `context` the other schemas of
    the same value. If it `is_made` of others, its path is that of their keyword."""

    schema: JsonValue
    path: Path
    base: str = ""
    context: Facets = ()
    budget: Budget = field(default_factory=Budget)
    is_made: bool = False

    def below(self, schema: JsonValue, *names: str | int) -> "Node":
        """Returns a node for a part of the value."""
        path = self.path if self.is_made else (*self.path, *names)
        return Node(schema=schema, path=path, base=self.base, is_made=self.is_made)

    def beside(self, schema: JsonValue, *names: str | int, context: Facets) -> "Node":
        """Returns a node for the same value, which must satisfy both; `context` are all its
        schemas, including this node's context."""
        path = self.path if self.is_made else (*self.path, *names)
        return replace(self, schema=schema, path=path, context=context)

    def made(self, schema: JsonValue, keyword: str, context: Facets) -> "Node":
        """Returns a node for the same value with a schema derived from this keyword."""
        return replace(self.beside(schema, keyword, context=context), is_made=True)

    def branch(self, schema: JsonValue, *names: str | int, context: Facets) -> "Node":
        """Returns a node for the same value, which may satisfy this schema or another."""
        beside = self.beside(schema, *names, context=context)
        return replace(beside, budget=Budget(self.budget.ways))


class Whole(Protocol):
    """Rewriting of the whole schema, to which nodes belong."""

    logic: Logic

    def lower(self, node: Node) -> JsonValue:
        """Rewrites a node for llguidance."""

    def widen(self) -> None:
        """Records that the result is wider than the client's schema."""

    def facets(self, node: Node) -> list[JsonValue]:
        """Returns all schemas that the node's value must satisfy."""
