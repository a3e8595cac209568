"""Actions of the overlay that a release makes stale, each with a reason and a repair.

An action is stale if it selects nothing in the new document. It is repaired if one change of its
target selects as many nodes as the target did in the old document: another keyword of a union, a
renamed schema, a moved path, another position. It is dropped if its subject is gone, or if it
removed what the new document no longer has. Any other stale action must be corrected by hand.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jsonpath import JSONPathEnvironment, JSONPathMatch
from jsonpath.exceptions import JSONPathError

from llm_backend.contract.compilation.overlay import OverlayError, apply_action
from llm_backend.contract.release.change import ChangeKind, ContractChange
from llm_backend.json_types import JsonValue

_JSONPATH = JSONPathEnvironment(strict=True)
_POSITION = re.compile(r"\[\d+\]")
_ROOT_PARTS = {"components": 3, "paths": 2, "webhooks": 2}
_KEYS_SHOWN = 8


class Repair(StrEnum):
    """Repairs of a stale action."""

    RETARGET = "retarget"
    DROP = "drop"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleAction:
    """A stale action by its position in the overlay; `target` is the new target of a repair."""

    position: int
    action: Mapping[str, Any]
    repair: Repair
    reason: str
    target: str | None = None

    @property
    def line(self) -> str:
        """Line of the report."""
        done = f" -> `{self.target}`" if self.target else ""
        verb = {Repair.RETARGET: "repaired", Repair.DROP: "dropped", Repair.NONE: "STALE"}
        return f"{verb[self.repair]}: `{self.action['target']}`{done}: {self.reason}"


def stale_actions(
    old: Mapping[str, JsonValue],
    new: Mapping[str, JsonValue],
    overlay: Mapping[str, Any],
    changes: Sequence[ContractChange],
) -> list[StaleAction]:
    """Returns all actions that select nothing in `new`. Both documents are facts without the
    overlay; `changes` are their differences."""
    before, after = deepcopy(dict(old)), deepcopy(dict(new))
    renamed = dict(_read_renames(changes))
    stale = []
    for position, action in enumerate(overlay["actions"]):
        matches = _select(action["target"], before)
        if not _select(action["target"], after):
            found = _stale_action(position, action, matches, after, renamed)
            stale.append(found)
            if found.target is not None:
                _apply_if_possible(after, {**action, "target": found.target})
        else:
            _apply_if_possible(after, action)
        _apply_if_possible(before, action)
    return stale


def _stale_action(
    position: int,
    action: Mapping[str, Any],
    matches: Sequence[JSONPathMatch],
    document: Mapping[str, JsonValue],
    renamed: Mapping[str, str],
) -> StaleAction:
    target = action["target"]
    candidates = {
        each for each in _candidates(target, renamed)
        if matches and len(_select(each, document)) == len(matches)
    }  # fmt: skip
    if len(candidates) == 1:
        return StaleAction(
            position=position, action=action, repair=Repair.RETARGET, target=candidates.pop(),
            reason="it selects what the old target selected",
        )  # fmt: skip
    located = [_locate(match.parts, document) for match in matches]
    reason = "; ".join(dict.fromkeys(text for _, text in located)) or "it selected nothing before"
    is_gone = all(depth < _ROOT_PARTS.get(str(match.parts[0]), 1)
                  for (depth, _), match in zip(located, matches, strict=True))  # fmt: skip
    is_obsolete = action.get("remove") is True and all(
        depth == len(match.parts) - 1 for (depth, _), match in zip(located, matches, strict=True)
    )
    if is_gone or is_obsolete:
        return StaleAction(position=position, action=action, repair=Repair.DROP, reason=reason)
    if candidates:
        reason += f"; it may be one of {', '.join(sorted(candidates))}"
    return StaleAction(position=position, action=action, repair=Repair.NONE, reason=reason)


def _candidates(target: str, renamed: Mapping[str, str]) -> Iterator[str]:
    """Yields targets that may replace a stale one; each differs from it in one way."""
    for one, other in (("oneOf", "anyOf"), ("anyOf", "oneOf")):
        if one in target:
            yield target.replace(one, other)
    if _POSITION.search(target):
        yield _POSITION.sub("[*]", target)
        for one, other in (("oneOf", "anyOf"), ("anyOf", "oneOf")):
            yield _POSITION.sub("[*]", target.replace(one, other))
    swapped = target
    for one, other in renamed.items():
        name = rf"(?<![\w/}}]){re.escape(one)}(?![\w/{{])"
        swapped = other.join(re.split(name, swapped))
    if swapped != target:
        yield swapped


def _locate(parts: Sequence[str | int], document: JsonValue) -> tuple[int, str]:
    """Returns the number of parts of a location that still exist, and a description of the last."""
    node, depth = document, 0
    for part in parts:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
        depth += 1
    location = "$" + "".join(f"[{part!r}]" for part in parts[:depth])
    missing = repr(parts[depth]) if depth < len(parts) else "nothing"
    keys = list(node)[:_KEYS_SHOWN] if isinstance(node, dict) else type(node).__name__
    return depth, f"{location} has no {missing}, but {keys}"


def _read_renames(changes: Sequence[ContractChange]) -> Iterator[tuple[str, str]]:
    """Yields old and new names of schemas, and old and new paths of operations."""
    for change in changes:
        if change.kind is ChangeKind.SCHEMA_RENAMED:
            yield change.location.rsplit("/", 1)[-1], change.new
        elif change.kind is ChangeKind.OPERATION_MOVED:
            yield change.location.split(" ", 1)[1], change.new.split(" ", 1)[1]


def _select(target: str, document: Mapping[str, JsonValue]) -> list[JSONPathMatch]:
    try:
        return list(_JSONPATH.finditer(target, document))
    except JSONPathError:
        return []


def _apply_if_possible(document: dict[str, JsonValue], action: Mapping[str, Any]) -> None:
    """Applies an action on which later ones may depend. Its error is not reported here, but when
    the whole overlay is applied."""
    try:
        apply_action(document, action)
    except OverlayError:
        return
