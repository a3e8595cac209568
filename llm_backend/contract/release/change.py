"""One difference between two releases of the document, and what breaks because of it."""

from dataclasses import dataclass
from enum import StrEnum

from llm_backend.json_types import JsonValue


class Direction(StrEnum):
    """Direction in which a value travels."""

    REQUEST = "request"
    RESPONSE = "response"


class ChangeKind(StrEnum):
    """Kinds of differences; the first part of each name is the thing that changed."""

    OPERATION_ADDED = "operation.added"
    OPERATION_REMOVED = "operation.removed"
    OPERATION_MOVED = "operation.moved"
    PARAMETER_ADDED = "parameter.added"
    PARAMETER_REMOVED = "parameter.removed"
    CONTENT_ADDED = "content.added"
    CONTENT_REMOVED = "content.removed"
    FIELD_ADDED = "field.added"
    FIELD_REMOVED = "field.removed"
    FIELD_REQUIRED = "field.required"
    FIELD_OPTIONAL = "field.optional"
    VALUES_ADDED = "values.added"
    VALUES_REMOVED = "values.removed"
    BRANCH_ADDED = "branch.added"
    BRANCH_REMOVED = "branch.removed"
    BOUND_LOOSENED = "bound.loosened"
    BOUND_TIGHTENED = "bound.tightened"
    KEYWORD_CHANGED = "keyword.changed"
    SCHEMA_ADDED = "schema.added"
    SCHEMA_REMOVED = "schema.removed"
    SCHEMA_RENAMED = "schema.renamed"
    UNION_REWRITTEN = "union.rewritten"


_WIDER = frozenset(
    {ChangeKind.VALUES_ADDED, ChangeKind.BRANCH_ADDED, ChangeKind.BOUND_LOOSENED}
    | {ChangeKind.CONTENT_ADDED}
)
_NARROWER = frozenset(
    {ChangeKind.VALUES_REMOVED, ChangeKind.BRANCH_REMOVED, ChangeKind.BOUND_TIGHTENED}
    | {ChangeKind.CONTENT_REMOVED}
)
# Clients or the server break if they get a value that the old document did not allow, or send one
# that the new one no longer allows.
_BREAKS_CLIENTS = {
    Direction.REQUEST: _NARROWER
    | {ChangeKind.FIELD_REMOVED, ChangeKind.FIELD_REQUIRED, ChangeKind.PARAMETER_REMOVED},
    Direction.RESPONSE: _WIDER
    | {ChangeKind.FIELD_REMOVED, ChangeKind.FIELD_OPTIONAL, ChangeKind.CONTENT_REMOVED},
}
_BREAKS_SERVER = {
    Direction.REQUEST: _WIDER | {ChangeKind.FIELD_ADDED, ChangeKind.PARAMETER_ADDED},
    Direction.RESPONSE: _NARROWER | {ChangeKind.FIELD_REQUIRED},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractChange:
    """One difference: `location` is an operation or a component and the path within it.

    `directions` are those in which values of the location travel, `operations` the ids of the
    operations that use it; both are empty if the change has no effect on the wire.
    """

    kind: ChangeKind
    location: str
    old: JsonValue = None
    new: JsonValue = None
    directions: frozenset[Direction] = frozenset()
    operations: tuple[str, ...] = ()

    @property
    def breaks_clients(self) -> bool:
        """True if a client of the old release may fail."""
        if self.kind in {ChangeKind.OPERATION_REMOVED, ChangeKind.OPERATION_MOVED}:
            return True
        return any(self.kind in _BREAKS_CLIENTS[direction] for direction in self.directions)

    @property
    def breaks_server(self) -> bool:
        """True if a server of the old release violates the new one."""
        if self.kind in {ChangeKind.OPERATION_ADDED, ChangeKind.OPERATION_MOVED}:
            return True
        return any(self.kind in _BREAKS_SERVER[direction] for direction in self.directions)

    @property
    def rank(self) -> tuple[str, str, str]:
        """Order of differences in a report."""
        return self.location, self.kind, repr((self.old, self.new))
