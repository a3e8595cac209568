"""Renders the differences between releases as Markdown for people, and as JSON."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.release.change import ChangeKind, ContractChange
from llm_backend.json_types import JsonValue

_SENTENCES = {
    ChangeKind.OPERATION_ADDED: "new operation",
    ChangeKind.OPERATION_REMOVED: "operation removed",
    ChangeKind.OPERATION_MOVED: "operation moved to `{new}`",
    ChangeKind.PARAMETER_ADDED: "new parameter",
    ChangeKind.PARAMETER_REMOVED: "parameter removed",
    ChangeKind.CONTENT_ADDED: "new content type",
    ChangeKind.CONTENT_REMOVED: "content type removed",
    ChangeKind.FIELD_ADDED: "new field",
    ChangeKind.FIELD_REMOVED: "field removed",
    ChangeKind.FIELD_REQUIRED: "now required",
    ChangeKind.FIELD_OPTIONAL: "no longer required",
    ChangeKind.VALUES_ADDED: "new values: {new}",
    ChangeKind.VALUES_REMOVED: "values removed: {old}",
    ChangeKind.BRANCH_ADDED: "new alternative: {new}",
    ChangeKind.BRANCH_REMOVED: "alternative removed: {old}",
    ChangeKind.BOUND_LOOSENED: "loosened from {old} to {new}",
    ChangeKind.BOUND_TIGHTENED: "tightened from {old} to {new}",
    ChangeKind.KEYWORD_CHANGED: "changed from {old} to {new}",
    ChangeKind.SCHEMA_ADDED: "new schema",
    ChangeKind.SCHEMA_REMOVED: "schema removed",
    ChangeKind.SCHEMA_RENAMED: "schema renamed to `{new}`",
    ChangeKind.UNION_REWRITTEN: "`{new}` in the place of `{old}`",
}
_OPERATIONS_SHOWN = 3


def as_json(old: str, new: str, changes: Iterable[ContractChange]) -> dict[str, JsonValue]:
    """Returns the differences as JSON; `old` and `new` name the two releases."""
    return {
        "old": old,
        "new": new,
        "changes": [
            {
                "kind": change.kind,
                "location": change.location,
                "old": change.old,
                "new": change.new,
                "operations": list(change.operations),
                "breaks": ["clients"] * change.breaks_clients + ["server"] * change.breaks_server,
            }
            for change in changes
        ],
    }


def as_markdown(
    old: str, new: str, changes: Sequence[ContractChange], *, local: Collection[str] = ()
) -> str:
    """Returns the differences as Markdown. `local` has the operations that this server answers
    itself: only differences in those count as breaking the server."""
    rewritten = [change for change in changes if change.kind is ChangeKind.UNION_REWRITTEN]
    others = [change for change in changes if change.kind is not ChangeKind.UNION_REWRITTEN]
    operations = [change for change in others if change.kind.startswith("operation.")]
    schemas = [change for change in others if change.kind.startswith("schema.")]
    rest = [change for change in others if change not in operations and change not in schemas]
    clients = [change for change in rest if change.breaks_clients]
    server = [
        change
        for change in rest
        if change.breaks_server and (not local or set(change.operations) & set(local))
    ]
    neither = [change for change in rest if change not in clients and change not in server]
    lines = [f"# From {old} to {new}", ""]
    if not changes:
        lines += ["No difference.", ""]
    lines += _section("Operations", operations)
    lines += _section("What may break clients of the old release", clients)
    lines += _section("What this server must do now", server)
    lines += _section("Other differences", neither)
    lines += _section("Components", schemas)
    if rewritten:
        lines += ["## Unions", "", *_unions(rewritten), ""]
    return "\n".join(lines)


def _section(title: str, changes: Sequence[ContractChange]) -> list[str]:
    if not changes:
        return []
    return [f"## {title} ({len(changes)})", "", *(f"- {_line(change)}" for change in changes), ""]


def _line(change: ContractChange) -> str:
    sentence = _SENTENCES[change.kind].format(old=_value(change.old), new=_value(change.new))
    location = change.location.removeprefix(SCHEMAS_PREFIX)
    if location == change.location:
        return f"`{location}`: {sentence}"
    named = ", ".join(change.operations[:_OPERATIONS_SHOWN])
    more = len(change.operations) - _OPERATIONS_SHOWN
    used = f" ({named}{f' and {more} more' if more > 0 else ''})" if named else ""
    return f"`{location}`{used}: {sentence}"


def _value(value: JsonValue) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _unions(changes: Sequence[ContractChange]) -> Iterator[str]:
    """Yields one line for each pair of keywords, because the alternatives are the same."""
    counts = Counter((str(change.old), str(change.new)) for change in changes)
    for (old, new), count in counts.most_common():
        locations = "1 location has" if count == 1 else f"{count:,} locations have"
        yield f"- {locations} `{new}` where `{old}` was"
