"""A place in a schema that is being rewritten, and what the rewriting asks of the whole."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from llm_backend.backends.local.schemas.kinds import Json, Path
from llm_backend.backends.local.schemas.logic import Facets, Logic

__all__ = ["Budget", "Node", "Whole"]

_CHOICES_MOST = 32  # ways in which conditions of one value may combine: native code tries each


@dataclass
class Budget:
    """The ways in which the conditions of one value combine so far."""

    ways: int = 1

    def takes(self, count: int) -> bool:
        """Whether a choice of so many is not too much; if so, it is counted."""
        if self.ways * count > _CHOICES_MOST:
            return False
        self.ways *= count
        return True


@dataclass(frozen=True, kw_only=True)
class Node:
    """One schema: where it stands, what its references are relative to, and in `context` what the
    same value is held to besides. One that `is_made` of others stands where its keyword does."""

    schema: Json
    path: Path
    base: str = ""
    context: Facets = ()
    budget: Budget = field(default_factory=Budget)
    is_made: bool = False

    def below(self, schema: Json, *names: str | int) -> "Node":
        """A schema for a part of the value."""
        path = self.path if self.is_made else (*self.path, *names)
        return Node(schema=schema, path=path, base=self.base, is_made=self.is_made)

    def beside(self, schema: Json, *names: str | int, context: Facets) -> "Node":
        """A schema for the same value, which must be by both; `context` is all that it is held to,
        this node's own context included."""
        path = self.path if self.is_made else (*self.path, *names)
        return replace(self, schema=schema, path=path, context=context)

    def made(self, schema: Json, keyword: str, context: Facets) -> "Node":
        """A schema for the same value that this keyword makes of others."""
        return replace(self.beside(schema, keyword, context=context), is_made=True)

    def branch(self, schema: Json, *names: str | int, context: Facets) -> "Node":
        """A schema for the same value, which may be by this one or another."""
        beside = self.beside(schema, *names, context=context)
        return replace(beside, budget=Budget(self.budget.ways))


class Whole(Protocol):
    """The schema of which nodes are parts."""

    logic: Logic

    def lower(self, node: Node) -> Json:
        """The node for native code."""

    def widen(self) -> None:
        """What was left out makes the grammar say more than the schema."""

    def facets(self, node: Node) -> list[Json]:
        """All that the node's value is held to."""
