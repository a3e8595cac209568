"""Update of `openapi/` to another release of OpenAI's document.

The document is built, compared, overlaid and compiled in a temporary folder. Once all of that has
succeeded, the files are replaced one by one.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from llm_backend.contract.compilation.builder import (
    METHODS,
    dump_facts,
    facts_of,
    parse_document,
    read_source,
)
from llm_backend.contract.compilation.compiler import compile_contract, extend_document
from llm_backend.contract.compilation.fingerprint import SOURCES
from llm_backend.contract.compilation.summaries import summary_of, tag_of
from llm_backend.contract.document import SCHEMAS_PREFIX
from llm_backend.contract.release.change import ChangeKind, ContractChange
from llm_backend.contract.release.comparison import compare_documents
from llm_backend.contract.release.overlay_repair import Repair, StaleAction, stale_actions
from llm_backend.contract.release.report import as_markdown
from llm_backend.contract.release.yaml_edits import YamlEdits
from llm_backend.contract.sdk.operations import key_of
from llm_backend.contract.sdk.sdk_facts import dump_sdk, settle_facts
from llm_backend.json_types import JsonValue

_PROVENANCE = re.compile(r"<!-- provenance -->.*<!-- /provenance -->", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractUpdate:
    """Prepared update: the differences, and the text of each file to write."""

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    changes: Sequence[ContractChange]
    stale: Sequence[StaleAction]
    local: frozenset[str]
    files: Mapping[str, str] = field(repr=False)

    @property
    def is_complete(self) -> bool:
        """False if an action of the overlay must be corrected by hand."""
        return all(action.repair is not Repair.NONE for action in self.stale)

    @property
    def report(self) -> str:
        """The differences, and what was done about them, as Markdown."""
        lines = [
            as_markdown(_title_of(self.old), _title_of(self.new), self.changes, local=self.local)
        ]
        if self.stale:
            lines += [f"## Actions of overlay.yaml ({len(self.stale)})", ""]
            lines += [f"- {action.line}" for action in self.stale]
        gone = [one for each in _of(self.changes, ChangeKind.OPERATION_REMOVED)
                for one in each.operations if one in self.local]  # fmt: skip
        if gone:
            lines += ["", "## Controllers without an operation", ""]
            lines += [f"- `{one}` was answered by this server" for one in gone]
        return "\n".join(lines) + "\n"


def prepare_update(openapi_dir: Path, source: str) -> ContractUpdate:
    """Prepares the update of `openapi_dir` to the document at `source`, and writes nothing.

    Raises `DocumentError` if the source is not an OpenAPI document.
    """
    texts = {name: (openapi_dir / name).read_text(encoding="utf-8") for name in SOURCES}
    old = yaml.load(texts["openapi.yaml"], Loader=yaml.CSafeLoader)
    overlay = yaml.load(texts["overlay.yaml"], Loader=yaml.CSafeLoader)
    raw = read_source(source)
    new = facts_of(parse_document(raw, source))
    changes = compare_documents(old, new)
    extensions = yaml.load(texts["extensions.yaml"], Loader=yaml.CSafeLoader)
    sdk = yaml.load(texts["sdk.yaml"], Loader=yaml.CSafeLoader)
    rest = settle_facts(sdk, extend_document(new, extensions, "extensions.yaml"))
    before, after = extend_document(old, sdk, "sdk.yaml"), extend_document(new, rest, "sdk.yaml")
    stale = stale_actions(before, after, overlay, changes)
    files = {
        "openapi.yaml": dump_facts(new),
        "sdk.yaml": dump_sdk(rest),
        "overlay.yaml": edit_overlay(texts["overlay.yaml"], after, changes, stale),
        "extensions.yaml": _rename_references(texts["extensions.yaml"], changes),
        "operations.yaml": edit_operations(
            _rename_operations(texts["operations.yaml"], sdk, new), new, changes
        ),
        "README.md": _readme(openapi_dir / "README.md", source, raw, new),
    }
    return ContractUpdate(
        old=old["info"],
        new=new["info"],
        changes=changes,
        stale=stale,
        local=local_operations(texts["operations.yaml"]),
        files=files,
    )


def write_files(files: Mapping[str, str], openapi_dir: Path, compiled_dir: Path) -> None:
    """Compiles `openapi_dir` with these files and replaces them. Raises `OverlayError` or
    `ContractError`, and writes nothing in that case."""
    with tempfile.TemporaryDirectory(dir=openapi_dir.parent, prefix=".contract-") as folder:
        sources, compiled = Path(folder) / "openapi", Path(folder) / "compiled"
        shutil.copytree(openapi_dir, sources)
        for name, text in files.items():
            (sources / name).write_text(text, encoding="utf-8")
        compile_contract(sources, compiled)
        compiled_dir.mkdir(parents=True, exist_ok=True)
        for file in compiled.iterdir():
            shutil.move(file, compiled_dir / file.name)
        for name in files:
            (sources / name).replace(openapi_dir / name)


def _title_of(info: Mapping[str, Any]) -> str:
    return f"{info['title']} {info['version']}"


def _of(changes: Sequence[ContractChange], kind: ChangeKind) -> list[ContractChange]:
    return [change for change in changes if change.kind is kind]


def local_operations(text: str) -> frozenset[str]:
    """Returns the operations that this server answers itself, by the text of operations.yaml."""
    operations = yaml.load(text, Loader=yaml.CSafeLoader)
    return frozenset(name for name, answer in operations.items() if isinstance(answer, dict))


def edit_overlay(
    text: str,
    new: Mapping[str, Any],
    changes: Sequence[ContractChange],
    stale: Sequence[StaleAction],
) -> str:
    """Returns the overlay with its stale actions repaired or dropped, without the updates of
    removed operations, and with a summary for each new operation that has none."""
    edits = YamlEdits(text)
    items = next(value for key, value in edits.root.value if key.value == "actions").value
    for action in stale:
        node = items[action.position]
        if action.repair is Repair.DROP:
            edits.remove_item(node)
        elif action.target is not None:
            target = next(value for key, value in node.value if key.value == "target")
            edits.replace_scalar(target, action.target)
    summaries: dict[str, str] = {}
    gone = {one for each in _of(changes, ChangeKind.OPERATION_REMOVED) for one in each.operations}
    for node in items:
        fields = {key.value: value for key, value in node.value}
        if fields["target"].value == "$.paths" and "update" in fields:
            summaries |= _summaries(fields["update"])
            _remove_operations(edits, fields["update"], new["paths"], gone)
    added = [
        *_of(changes, ChangeKind.OPERATION_ADDED),
        *_of(changes, ChangeKind.OPERATION_MOVED),
    ]
    return _rename_references(edits.text(), changes) + "".join(
        _summary_action(new, change, summaries)
        for change in added
        if not change.location.startswith("webhook") and "summary" not in _find_added(new, change)
    )


def _find_added(new: Mapping[str, Any], change: ContractChange) -> Mapping[str, Any]:
    """Returns an added or moved operation."""
    location = change.new if change.kind is ChangeKind.OPERATION_MOVED else change.location
    method, path = location.split(" ", 1)
    operation: Mapping[str, Any] = new["paths"][path][method.lower()]
    return operation


def _remove_operations(
    edits: YamlEdits, update: yaml.MappingNode, paths: Mapping[str, Any], gone: set[str]
) -> None:
    """Removes paths and methods that the document no longer has, and links to them."""
    edits.remove_entries(update, lambda path, _: path.value in paths)
    for path, methods in update.value:
        item = paths.get(path.value)
        if item is not None:
            edits.remove_entries(methods, partial(_is_in, item))
            for node in edits.mappings_of(methods):
                edits.remove_entries(node, lambda _, link: _link(link) not in gone)


def _is_in(item: Mapping[str, Any], key: yaml.Node, _value: yaml.Node) -> bool:
    return key.value in item


def _link(node: yaml.Node) -> str | None:
    """Returns the operation that a link names."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value.value for key, value in node.value if key.value == "operationId"), None)


def _summaries(update: yaml.MappingNode) -> dict[str, str]:
    """Returns the summaries that an action gives, by method and path."""
    return {
        f"{method.value.upper()} {path.value}": value.value
        for path, methods in update.value
        for method, fields in methods.value
        for key, value in fields.value
        if key.value == "summary"
    }


def _summary_action(
    new: Mapping[str, Any], change: ContractChange, summaries: Mapping[str, str]
) -> str:
    is_moved = change.kind is ChangeKind.OPERATION_MOVED
    method, path = (change.new if is_moved else change.location).split(" ", 1)
    operation = _find_added(new, change)
    summary = summaries.get(change.location) if is_moved else None
    update: dict[str, JsonValue] = {"summary": summary or summary_of(method, path)}
    if "operationId" not in operation:
        update["operationId"] = change.operations[0]
    if not operation.get("tags"):
        update["tags"] = [tag_of(path)]
    body = yaml.safe_dump(update, default_flow_style=True, width=1000, sort_keys=False).strip()
    return (
        f"  - target: $.paths['{path}'].{method.lower()}\n"
        f"    description: A summary of our own, as for the others.\n"
        f"    update: {body}\n"
    )


def _rename_references(text: str, changes: Sequence[ContractChange]) -> str:
    for change in _of(changes, ChangeKind.SCHEMA_RENAMED):
        text = re.sub(
            rf"{re.escape(change.location)}(?![\w.-])", f"{SCHEMAS_PREFIX}{change.new}", text
        )
    return text


def _rename_operations(text: str, sdk: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Returns operations.yaml with the document's operationIds for operations that only the SDK had
    until now."""
    ids = {key_of(method, path): item[method]["operationId"]
           for path, item in new["paths"].items() for method in METHODS
           if "operationId" in item.get(method, {})}  # fmt: skip
    for path, item in sdk["paths"].items():
        for method, operation in item.items():
            taken = ids.get(key_of(method, path), operation["operationId"])
            text = re.sub(rf"(?m)^{re.escape(operation['operationId'])}:", f"{taken}:", text)
    return text


def edit_operations(text: str, new: Mapping[str, Any], changes: Sequence[ContractChange]) -> str:
    """Returns operations.yaml without the removed operations; new ones are relayed."""
    lines = text.splitlines()
    for change in _of(changes, ChangeKind.OPERATION_REMOVED):
        lines = [line for line in lines if not line.startswith(f"{change.operations[0]}:")]
    for change in _of(changes, ChangeKind.OPERATION_ADDED):
        is_listed = any(line.startswith(f"{change.operations[0]}:") for line in lines)
        if is_listed or change.location.startswith("webhook"):
            continue
        method, path = change.location.split(" ", 1)
        tags = new["paths"][path][method.lower()].get("tags") or [tag_of(path)]
        lines.insert(_section_end(lines, f"# {tags[0]}"), f"{change.operations[0]}: upstream")
    return "\n".join(lines) + "\n"


def _section_end(lines: list[str], header: str) -> int:
    """Returns the position after the last line of a section. A missing section is added before that
    of extensions.yaml, or else at the end."""
    if header not in lines:
        extensions = (at for at, line in enumerate(lines) if line.endswith("(extensions.yaml)"))
        at = next(extensions, None)
        if at is None:
            lines += ["", header]
            return len(lines)
        lines[at:at] = [header, ""]
        return at + 1
    at = lines.index(header) + 1
    while at < len(lines) and lines[at].strip():
        at += 1
    return at


def _readme(file: Path, source: str, raw: bytes, new: Mapping[str, Any]) -> str:
    """Returns the text of the README with a new table of the document's origin."""
    operations = sum(method in item for item in new["paths"].values() for method in METHODS)
    rows = {
        "API version": new["info"]["version"],
        "Source": source if "://" in source else Path(source).name,
        "SHA-256 of the source": sha256(raw).hexdigest(),
        "Taken on": datetime.now(UTC).date().isoformat(),
        "Operations": operations,
        "Schemas": len(new["components"].get("schemas", {})),
    }
    table = "\n".join(
        ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    )
    block = f"<!-- provenance -->\n{table}\n<!-- /provenance -->"
    return _PROVENANCE.sub(lambda _: block, file.read_text(encoding="utf-8"))
