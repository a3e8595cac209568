"""Node of a schema that is being lowered, and the interface of the whole lowering."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from llm_backend.backends.schemas.budget import SchemaBudget
from llm_backend.backends.schemas.keywords import Path
from llm_backend.backends.schemas.logic import Conjuncts, Logic
from llm_backend.json_types import JsonValue

_COMBINATIONS_LIMIT = 32


@dataclass
class CombinationBudget:
    """Budget for combinations of one value's conditions: llguidance tries each of them."""

    combinations: int = 1

    def spend(self, count: int) -> bool:
        """Spends a choice of `count` alternatives; returns False if the budget is too small."""
        if self.combinations * count > _COMBINATIONS_LIMIT:
            return False
        self.combinations *= count
        return True


@dataclass(frozen=True, kw_only=True)
class Node:
    """One schema: its path, the base URI of its references, and in `context` the other schemas of
    the same value. If it `is_derived` from other schemas, its path is the path of their keyword."""

    schema: JsonValue
    path: Path
    base: str = ""
    context: Conjuncts = ()
    budget: CombinationBudget = field(default_factory=CombinationBudget)
    is_derived: bool = False

    def child(self, schema: JsonValue, *names: str | int) -> "Node":
        """Returns a node for a part of the value."""
        path = self.path if self.is_derived else (*self.path, *names)
        return Node(schema=schema, path=path, base=self.base, is_derived=self.is_derived)

    def with_schema(self, schema: JsonValue, *names: str | int, context: Conjuncts) -> "Node":
        """Returns a node for the same value, which must satisfy both schemas; `context` are all its
        schemas, including this node's context."""
        path = self.path if self.is_derived else (*self.path, *names)
        return replace(self, schema=schema, path=path, context=context)

    def derive(self, schema: JsonValue, keyword: str, context: Conjuncts) -> "Node":
        """Returns a node for the same value with a schema derived from this keyword."""
        return replace(self.with_schema(schema, keyword, context=context), is_derived=True)

    def branch(self, schema: JsonValue, *names: str | int, context: Conjuncts) -> "Node":
        """Returns a node for the same value, which may satisfy this schema or another."""
        sibling = self.with_schema(schema, *names, context=context)
        return replace(sibling, budget=CombinationBudget(self.budget.combinations))


class Lowering(Protocol):
    """Lowering of the whole schema, to which nodes belong."""

    logic: Logic
    budget: SchemaBudget

    def lower(self, node: Node) -> JsonValue:
        """Lowers a node for llguidance."""

    def mark_wider(self) -> None:
        """Records that the result is wider than the client's schema."""

    def conjuncts(self, node: Node) -> list[JsonValue]:
        """Returns all schemas that the node's value must satisfy."""
