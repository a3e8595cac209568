"""Differences of two documents: operations, parameters, bodies, answers and components.

A component is compared once, and its differences carry the operations that use it. Both documents
are reduced to facts (`builder.facts_of`): differences of prose and order do not count.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llm_backend.contract.compilation.builder import METHODS
from llm_backend.contract.compilation.summaries import id_of
from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.release.change import ChangeKind, ContractChange, Direction
from llm_backend.contract.release.schema_comparison import SchemaComparison
from llm_backend.json_types import JsonValue

DocumentFacts = Mapping[str, Any]
SchemaUsage = Mapping[str, Mapping[Direction, set[str]]]


class _DocumentOperation(NamedTuple):
    """One operation of a document, or one webhook, whose body the server sends."""

    location: str
    facts: Mapping[str, Any]
    is_webhook: bool = False

    @property
    def operation_id(self) -> str:
        return str(self.facts.get("operationId") or id_of(*self.location.split(" ", 1)))


def compare_documents(old: DocumentFacts, new: DocumentFacts) -> list[ContractChange]:
    """Returns the differences of two documents, sorted by location."""
    comparison = _DocumentComparison(old, new)
    return sorted(comparison.changes(), key=lambda change: change.rank)


class _DocumentComparison:
    """One comparison, with the schemas and the parameters of both documents."""

    def __init__(self, old: DocumentFacts, new: DocumentFacts) -> None:
        self._old, self._new = old, new
        self._schemas = _schemas(old), _schemas(new)
        self._comparison = SchemaComparison(*self._schemas)

    def changes(self) -> Iterator[ContractChange]:
        yield from self._operations()
        yield from self._components()

    def _operations(self) -> Iterator[ContractChange]:
        before, after = _operations_of(self._old), _operations_of(self._new)
        moved = {after[key].operation_id: key for key in after.keys() - before.keys()}
        for key in sorted(before.keys() - after.keys()):
            gone = before[key]
            if gone.operation_id in moved:
                there = after.pop(moved.pop(gone.operation_id))
                yield ContractChange(
                    kind=ChangeKind.OPERATION_MOVED, location=gone.location, new=there.location,
                    operations=(there.operation_id,),
                )  # fmt: skip
                yield from self._operation(gone, there)
            else:
                yield ContractChange(
                    kind=ChangeKind.OPERATION_REMOVED, location=gone.location,
                    operations=(gone.operation_id,),
                )  # fmt: skip
        for key in sorted(after.keys() - before.keys()):
            yield ContractChange(
                kind=ChangeKind.OPERATION_ADDED, location=after[key].location,
                operations=(after[key].operation_id,),
            )  # fmt: skip
        for key in sorted(before.keys() & after.keys()):
            yield from self._operation(before[key], after[key])

    def _operation(
        self, old: _DocumentOperation, new: _DocumentOperation
    ) -> Iterator[ContractChange]:
        if old.operation_id != new.operation_id:
            yield self._keyword(new, "operationId", old.operation_id, new.operation_id)
        for key in ("deprecated", "security"):
            if old.facts.get(key) != new.facts.get(key):
                yield self._keyword(new, key, old.facts.get(key), new.facts.get(key))
        yield from self._parameters(old, new)
        incoming, outgoing = Direction.REQUEST, Direction.RESPONSE
        if new.is_webhook:
            incoming, outgoing = outgoing, incoming
        bodies = old.facts.get("requestBody", {}), new.facts.get("requestBody", {})
        if bodies[1].get("required") and not bodies[0].get("required"):
            yield _change(ChangeKind.FIELD_REQUIRED, new, "request", incoming)
        yield from self._contents(bodies[0], bodies[1], new, "request", incoming)
        answers = old.facts.get("responses", {}), new.facts.get("responses", {})
        for status in sorted(answers[0].keys() | answers[1].keys()):
            if not str(status).startswith("2"):
                continue  # errors have one shape, which the overlay describes
            old_answer, new_answer = answers[0].get(status), answers[1].get(status)
            location = f"response {status}"
            if old_answer is None:
                yield _change(ChangeKind.CONTENT_ADDED, new, location, outgoing)
            elif new_answer is None:
                yield _change(ChangeKind.CONTENT_REMOVED, new, location, outgoing)
            else:
                yield from self._contents(old_answer, new_answer, new, location, outgoing)

    @staticmethod
    def _keyword(
        operation: _DocumentOperation, key: str, old: JsonValue, new: JsonValue
    ) -> ContractChange:
        return ContractChange(
            kind=ChangeKind.KEYWORD_CHANGED, location=f"{operation.location} ({key})", old=old,
            new=new, operations=(operation.operation_id,),
        )  # fmt: skip

    def _parameters(
        self, old: _DocumentOperation, new: _DocumentOperation
    ) -> Iterator[ContractChange]:
        before = _parameters_of(old.facts, self._old)
        after = _parameters_of(new.facts, self._new)
        for key in sorted(before.keys() | after.keys()):
            location = f"{key[0]} parameter {key[1]}"
            if key not in after:
                yield _change(ChangeKind.PARAMETER_REMOVED, new, location, Direction.REQUEST)
                continue
            is_required = after[key].get("required", False)
            if key not in before:
                yield _change(ChangeKind.PARAMETER_ADDED, new, location, Direction.REQUEST)
            elif not is_required and before[key].get("required", False):
                yield _change(ChangeKind.FIELD_OPTIONAL, new, location, Direction.REQUEST)
            if is_required and not before.get(key, {}).get("required", False):
                yield _change(ChangeKind.FIELD_REQUIRED, new, location, Direction.REQUEST)
            if key in before:
                schemas = before[key].get("schema", {}), after[key].get("schema", {})
                yield from self._schema(*schemas, new, location, Direction.REQUEST)

    def _contents(
        self,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        operation: _DocumentOperation,
        location: str,
        direction: Direction,
    ) -> Iterator[ContractChange]:
        before, after = old.get("content", {}), new.get("content", {})
        for media in sorted(before.keys() | after.keys()):
            named = f"{location} {media}"
            if media not in after:
                yield _change(ChangeKind.CONTENT_REMOVED, operation, named, direction)
            elif media not in before:
                yield _change(ChangeKind.CONTENT_ADDED, operation, named, direction)
            else:
                schemas = before[media].get("schema", {}), after[media].get("schema", {})
                yield from self._schema(*schemas, operation, named, direction)

    def _schema(
        self, old: Any, new: Any, operation: _DocumentOperation, location: str, direction: Direction
    ) -> Iterator[ContractChange]:
        for difference in self._comparison.compare(old, new):
            path = f"{location} {difference.path.strip()}".strip()
            yield _change(
                difference.kind, operation, path, direction, difference.old, difference.new
            )

    def _components(self) -> Iterator[ContractChange]:
        before, after = self._schemas
        usages = _usage(self._old), _usage(self._new)
        renamed = dict(self._renames())
        for name in sorted(before.keys() | after.keys()):
            directions = {
                direction
                for usage in usages
                for direction, ids in usage.get(name, {}).items()
                if ids
            }
            ids = {
                one for usage in usages for found in usage.get(name, {}).values() for one in found
            }
            location = f"{SCHEMAS_PREFIX}{name}"
            if name in renamed:
                yield ContractChange(
                    kind=ChangeKind.SCHEMA_RENAMED, location=location, new=renamed[name]
                )
            elif name not in after:
                yield ContractChange(kind=ChangeKind.SCHEMA_REMOVED, location=location)
            elif name not in before and name not in renamed.values():
                yield ContractChange(kind=ChangeKind.SCHEMA_ADDED, location=location)
            elif name in before:
                for kind, path, old, new in self._comparison.compare(before[name], after[name]):
                    where = f"{location} {path.strip()}".strip()
                    yield ContractChange(
                        kind=kind,
                        location=where,
                        old=old,
                        new=new,
                        directions=frozenset(directions),
                        operations=tuple(sorted(ids)),
                    )

    def _renames(self) -> Iterator[tuple[str, str]]:
        """Yields pairs of names whose schemas are the same."""
        before, after = self._schemas
        added = sorted(after.keys() - before.keys())
        for name in sorted(before.keys() - after.keys()):
            for other in added:
                if before[name].get("type") != after[other].get("type"):
                    continue
                if not self._comparison.compare(before[name], after[other]):
                    added.remove(other)
                    yield name, other
                    break


def _change(
    kind: ChangeKind,
    operation: _DocumentOperation,
    location: str,
    direction: Direction,
    old: JsonValue = None,
    new: JsonValue = None,
) -> ContractChange:
    return ContractChange(
        kind=kind, location=f"{operation.location} {location}", old=old, new=new,
        directions=frozenset({direction}), operations=(operation.operation_id,),
    )  # fmt: skip


def _schemas(document: DocumentFacts) -> Mapping[str, Any]:
    schemas: Mapping[str, Any] = document.get("components", {}).get("schemas", {})
    return schemas


def _operations_of(document: DocumentFacts) -> dict[tuple[str, str], _DocumentOperation]:
    found = {}
    for path, item in document.get("paths", {}).items():
        for method in METHODS:
            if method in item:
                found[path, method] = _DocumentOperation(f"{method.upper()} {path}", item[method])
    for name, item in document.get("webhooks", {}).items():
        for method in METHODS:
            if method in item:
                location = f"webhook {name}"
                found[location, method] = _DocumentOperation(
                    location, item[method], is_webhook=True
                )
    return found


def _parameters_of(
    operation: Mapping[str, Any], document: DocumentFacts
) -> dict[tuple[str, str], Mapping[str, Any]]:
    found = {}
    for parameter in operation.get("parameters", ()):
        if "$ref" in parameter:
            name = parameter["$ref"].rsplit("/", 1)[-1]
            parameter = document["components"]["parameters"][name]
        found[parameter["in"], parameter["name"]] = parameter
    return found


def _usage(document: DocumentFacts) -> SchemaUsage:
    """Returns the operations that reach each component, by the direction in which it travels."""
    schemas = _schemas(document)
    direct = {name: set(_references(schema)) for name, schema in schemas.items()}
    usage: dict[str, dict[Direction, set[str]]] = defaultdict(lambda: defaultdict(set))
    for operation in _operations_of(document).values():
        variants = (operation.facts, operation.facts.get("x-beta", {}))
        request = [one.get(key, {}) for one in variants for key in ("requestBody", "parameters")]
        answers = [one.get("responses", {}) for one in variants]
        for direction, parts in ((Direction.REQUEST, request), (Direction.RESPONSE, answers)):
            seen: set[str] = set()
            waiting = {name for part in parts for name in _references(part)}
            while waiting:
                name = waiting.pop()
                seen.add(name)
                waiting |= direct.get(name, set()) - seen
            if operation.is_webhook:
                direction = (
                    Direction.RESPONSE if direction is Direction.REQUEST else Direction.REQUEST
                )
            for name in seen:
                usage[name][direction].add(operation.operation_id)
    return usage


def _references(node: JsonValue) -> Iterator[str]:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(SCHEMAS_PREFIX):
            yield reference.removeprefix(SCHEMAS_PREFIX)
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
