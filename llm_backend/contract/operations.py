"""Table of API operations: path, method, handler; local, relayed to an upstream or unsupported."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

AnsweredBy: TypeAlias = Literal["local", "upstream", "unsupported"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operation of the contract; `path` is the document's, to which `/v1` may be prefixed.

    `controller` is the module under `llm_backend.controllers` that answers a local operation.
    `is_public`: the operation needs no API key. `administers`: it needs an admin key.
    """

    operation_id: str
    method: str
    path: str
    tag: str
    summary: str
    answered_by: AnsweredBy
    controller: str | None
    is_public: bool
    administers: bool

    @property
    def function(self) -> str:
        """Name of the handler: the operationId in snake case."""
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", self.operation_id)
        return words.lower()


class Operations(Mapping[str, Operation]):
    """All operations by operationId, in the document's order."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_id = {operation.operation_id: operation for operation in operations}

    def __getitem__(self, operation_id: str) -> Operation:
        return self._by_id[operation_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)


def as_json(operations: Operations) -> list[dict[str, str | None]]:
    """Returns the table for programs: `llm-backend operations --json`."""
    return [
        {
            "operationId": operation.operation_id,
            "method": operation.method,
            "path": operation.path,
            "tag": operation.tag,
            "summary": operation.summary,
            "answered": operation.answered_by,
            "controller": operation.controller,
        }
        for operation in operations.values()
    ]


def coverage_markdown(operations: Operations) -> str:
    """Returns the text of `docs/coverage.md`."""
    rows = list(operations.values())
    local = sum(row.answered_by == "local" for row in rows)
    upstream = sum(row.answered_by == "upstream" for row in rows)
    lines = [
        "# Coverage",
        "",
        "Generated from `openapi/operations.yaml` by `llm-backend operations --markdown`.",
        "",
        f"{len(rows)} operations: {local} are answered here, {upstream} are relayed to the upstream"
        " when one is configured and are answered with a 501 otherwise,"
        f" {len(rows) - local - upstream} are always a 501.",
    ]
    for tag in dict.fromkeys(row.tag for row in rows):
        lines += ["", f"## {tag}", "", "| operation | request | answered |", "|---|---|---|"]
        lines += [
            f"| {row.summary} (`{row.operation_id}`) "
            f"| `{row.method} {row.path}` | {row.answered_by} |"
            for row in rows
            if row.tag == tag
        ]
    return "\n".join(lines) + "\n"
