"""Update of a contract to another release: told whole, written whole or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llm_backend.cli import app
from llm_backend.contract.compilation.builder import build_contract
from llm_backend.contract.document import Document
from llm_backend.contract.sdk.sdk_facts import dump_sdk, settle_facts

OVERLAY = """\
overlay: 1.0.0
actions:

  # Schemas

  - target: $.components.schemas.Usage.properties
    description: A field of our own.
    update: &seconds {seconds: {type: number}}
  - target: $.components.schemas.Thing.properties.size.oneOf[0]
    description: A bound.
    update: {minimum: 0}
  # kept: a comment of the last one
  - target: $.components.schemas.Gone
    description: Of a schema that goes.
    update: {type: object}

  # Words

  - target: $.paths
    description: Summaries.
    update:
      /things:
        get: {summary: List things}
        post:
          summary: Make a thing
          responses:
            "200":
              links: {next: {operationId: removeThing}, back: {operationId: listThings}}
      "/things/{id}": {get: {summary: Get a thing}, delete: {summary: Delete a thing}}
      /old: {get: {summary: Look at what is old}}
      "/rooms/{id}": {get: {summary: See a room}}
"""
OPERATIONS = """\
# The backend of each operation.

# Things
listThings: upstream
makeThing: upstream
getThing: upstream
removeThing: {local: things}

# Old
getOld: upstream

# Rooms
see: upstream
use: {local: rooms}

# Service (extensions.yaml)
getPing: {local: service}
"""
EXTENSIONS = """\
tags: [{name: Service}]
paths:
  /ping:
    get:
      operationId: getPing
      tags: [Service]
      summary: Ping
      responses:
        "200":
          description: OK
          content: {application/json: {schema: {$ref: "#/components/schemas/Usage"}}}
"""
README = "# The contract\n\n<!-- provenance -->\n<!-- /provenance -->\n\nEnd.\n"


def operation(operation_id: str | None, tag: str = "Things", schema: str = "Thing") -> Any:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    facts = {"tags": [tag], "responses": {"200": {"description": "x", "content": content}}}
    return facts if operation_id is None else {**facts, "operationId": operation_id}


def release() -> dict[str, Any]:
    size = {"oneOf": [{"type": "number"}, {"type": "string"}]}
    usage = {"$ref": "#/components/schemas/Usage"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "An API", "version": "1", "license": {"name": "MIT"}},
        "servers": [{"url": "https://example.test"}],
        "tags": [{"name": "Things"}, {"name": "Old"}],
        "paths": {
            "/things": {"get": operation("listThings"), "post": operation("makeThing")},
            "/things/{id}": {"get": operation("getThing"), "delete": operation("removeThing")},
            "/old": {"get": operation("getOld", "Old")},
        },
        "components": {
            "schemas": {
                "Thing": {"type": "object", "properties": {"size": size, "usage": usage}},
                "Usage": {"type": "object", "properties": {"tokens": {"type": "integer"}}},
                "Gone": {"type": "string"},
            }
        },
    }


def sdk() -> dict[str, Any]:
    """Two operations beyond the release, which share a schema."""
    added = {name: {**operation(name, "Rooms", "Room"), "summary": name} for name in ("see", "use")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "An SDK", "version": "1.0.0"},
        "paths": {"/rooms/{id}": {"get": added["see"]}, "/rooms/{id}/use": {"post": added["use"]}},
        "components": {"schemas": {"Room": {"type": "object"}}},
    }


def later_release() -> dict[str, Any]:
    """Renames a schema and a union's keyword, removes, adds and moves operations, tightens."""
    new = json.loads(json.dumps(release()).replace("schemas/Usage", "schemas/TokenUsage"))
    schemas, paths = new["components"]["schemas"], new["paths"]
    schemas["TokenUsage"] = schemas.pop("Usage")
    schemas["Thing"]["properties"]["size"] = {"anyOf": [{"type": "string"}, {"type": "number"}]}
    schemas["Thing"]["required"] = ["size"]
    del schemas["Gone"]
    del paths["/things/{id}"]["delete"]
    paths["/older"] = paths.pop("/old")
    paths["/things/{id}/cancel"] = {"post": operation("cancelThing")}
    paths["/doors"] = {"get": {**operation(None), "tags": []}}
    return dict(reversed(new.items()))


@pytest.fixture
def openapi(tmp_path: Path) -> Path:
    folder = tmp_path / "openapi"
    folder.mkdir()
    source = tmp_path / "release.json"
    source.write_text(json.dumps(release()))
    build_contract(str(source), folder / "openapi.yaml")
    overlay = OVERLAY.replace(".oneOf[0]", ".oneOf[?@.type == 'number']")
    texts = {
        "sdk": dump_sdk(settle_facts(sdk(), release())),
        "overlay": overlay,
        "operations": OPERATIONS,
        "extensions": EXTENSIONS,
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "README.md").write_text(README)
    return folder


def update(openapi: Path, document: Any, *options: str) -> Any:
    source = openapi.parent / "later.json"
    source.write_text(document if isinstance(document, str) else json.dumps(document))
    command = ["contract", "update", str(source), "--openapi", str(openapi)]
    return CliRunner().invoke(app, [*command, "--compiled", str(openapi.parent / "c"), *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_update_absorbs_a_release_at_once(openapi: Path) -> None:
    result = update(openapi, later_release())

    assert result.exit_code == 0, result.output
    table = json.loads((openapi.parent / "c" / "start.json").read_bytes())
    document = Document(openapi.parent / "c", table)
    summaries = {one.operation_id: (one.path, one.summary) for one in document.operations.values()}
    assert summaries == {
        "listThings": ("/things", "List things"),
        "makeThing": ("/things", "Make a thing"),
        "getThing": ("/things/{id}", "Get a thing"),
        "getOld": ("/older", "Look at what is old"),
        "cancelThing": ("/things/{id}/cancel", "Cancel a thing"),
        "getDoors": ("/doors", "List doors"),
        "see": ("/rooms/{id}", "See a room"),
        "use": ("/rooms/{id}/use", "use"),
        "getPing": ("/ping", "Ping"),
    }
    assert json.loads(document.component("schemas", "TokenUsage"))["properties"].keys() == {
        "tokens", "seconds",
    }  # fmt: skip
    size = json.loads(document.component("schemas", "Thing"))["properties"]["size"]["anyOf"]
    assert {"type": "number", "minimum": 0} in size
    text = (openapi / "overlay.yaml").read_text()
    assert "# kept: a comment" in text
    assert "removeThing" not in text + (openapi / "operations.yaml").read_text()
    assert "back: {operationId: listThings}" in text
    assert "cancelThing: upstream" in (openapi / "operations.yaml").read_text()
    assert "| Operations | 6 |" in (openapi / "README.md").read_text()
    for told in (
        "`DELETE /things/{id}`: operation removed", "moved to `GET /older`", "`POST /things/{id}/",
        "`Thing size` (cancelThing, getDoors, getOld and 4 more): now required",
        "1 location has `anyOf` where `oneOf` was", "renamed to `TokenUsage`",
        "`removeThing` was answered by this server", "dropped: `$.components.schemas.Gone`",
    ):  # fmt: skip
        assert told in result.output


def test_update_removes_all_actions_of_the_overlay_on_replaced_operations(openapi: Path) -> None:
    new = release()
    new["paths"]["/old"] = {"post": operation("makeOld", "Old")}
    new["paths"]["/things/{id}"] = {"put": operation("replaceThing")}
    del new["paths"]["/things"]["get"]

    result = update(openapi, new)

    assert result.exit_code == 0, result.output
    table = json.loads((openapi.parent / "c" / "start.json").read_bytes())
    assert [row["operation_id"] for row in table["operations"]] == [
        "makeOld", "makeThing", "replaceThing", "see", "use", "getPing",
    ]  # fmt: skip
    overlay = yaml.safe_load((openapi / "overlay.yaml").read_text())
    paths = next(one for one in overlay["actions"] if one["target"] == "$.paths")["update"]
    links = paths["/things"]["post"]["responses"]["200"]["links"]
    assert (paths["/old"], paths["/things/{id}"], links) == ({}, {}, {})


def test_update_takes_over_operations_that_only_the_sdk_had(openapi: Path) -> None:
    new = release()
    new["paths"]["/rooms/{room}/use"] = {"post": operation("use-room", "Rooms", "Room")}
    new["components"]["schemas"]["Room"] = {"type": "object", "properties": {"size": {}}}

    result = update(openapi, new)

    assert result.exit_code == 0, result.output
    kept = yaml.safe_load((openapi / "sdk.yaml").read_text())
    assert kept["paths"].keys() == {"/rooms/{id}"}
    assert kept["components"]["schemas"].keys() == {"SdkRoom"}
    assert "use-room: {local: rooms}" in (openapi / "operations.yaml").read_text()
    table = json.loads((openapi.parent / "c" / "start.json").read_bytes())
    rows = {row["operation_id"]: row for row in table["operations"]}
    assert rows["use-room"]["path"] == "/rooms/{room}/use"
    assert rows["see"]["answered_by"] == "upstream"
    assert "use" not in rows


def test_update_to_the_same_release_changes_no_file_but_the_origin(openapi: Path) -> None:
    before = contents(openapi)

    result = update(openapi, release())

    assert result.exit_code == 0, result.output
    assert "No difference." in result.output
    after = contents(openapi)
    assert {name for name in after if after[name] != before[name]} == {"README.md"}


def test_update_with_an_action_that_fits_nowhere_names_all_of_them_and_writes_nothing(
    openapi: Path,
) -> None:
    before, new = contents(openapi), release()
    new["components"]["schemas"]["Thing"]["properties"] = {"length": {"type": "number"}}
    del new["components"]["schemas"]["Usage"]["properties"]

    result = update(openapi, new)

    assert result.exit_code == 1
    assert result.output.count("STALE: `") == 2
    assert "has no 'size', but ['length']" in result.output
    assert contents(openapi) == before
    assert not (openapi.parent / "c").exists()


@pytest.mark.parametrize(
    "document",
    ["{", "- a", '{"openapi": "3.1.0"}', "a: [1", json.dumps({**release(), "info": {}})],
)
def test_update_from_no_document_is_one_sentence(openapi: Path, document: str) -> None:
    before = contents(openapi)

    result = update(openapi, document)

    assert result.exit_code == 1
    assert "later.json" in result.output
    assert "Traceback" not in result.output
    assert contents(openapi) == before


def test_update_that_does_not_compile_writes_nothing(openapi: Path) -> None:
    before, new = contents(openapi), release()
    new["paths"]["/things"]["get"] = operation("makeThing")

    result = update(openapi, new)

    assert result.exit_code == 1
    assert "Nothing was written" in result.output
    assert contents(openapi) == before


def test_dry_run_writes_nothing(openapi: Path) -> None:
    before = contents(openapi)

    assert update(openapi, later_release(), "--dry-run").exit_code == 0
    assert contents(openapi) == before


def test_diff_as_json_lists_breaking_changes(tmp_path: Path) -> None:
    for name, document in (("old", release()), ("new", later_release())):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    files = [str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml")]

    result = CliRunner().invoke(app, ["contract", "diff", *files, "--json"])

    told = json.loads(result.output)["changes"]
    changes = {(one["kind"], one["location"]): one for one in told}
    assert changes["operation.removed", "DELETE /things/{id}"]["breaks"] == ["clients"]
    assert changes["operation.added", "GET /doors"]["breaks"] == ["server"]
    assert changes["operation.moved", "GET /old"]["new"] == "GET /older"
    required = changes["field.required", "#/components/schemas/Thing size"]
    assert required["breaks"] == ["server"]
    assert "listThings" in required["operations"]
