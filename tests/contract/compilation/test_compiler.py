"""The sources are in step with each other, with the compiled form and with the code."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
import yaml

from llm_backend.contract import ContractMissing, Document, load_document
from llm_backend.contract.compilation.compiler import ContractError, compile_contract
from llm_backend.contract.document import COMPILED

OPENAPI = Path("openapi")
METHODS = {"get", "post", "put", "delete", "patch", "head", "options", "trace"}


def source(name: str) -> Any:
    return yaml.load((OPENAPI / name).read_bytes(), Loader=yaml.CSafeLoader)


@pytest.fixture(scope="module")
def whole(document: Document) -> Any:
    return orjson.loads(document.text())


def operation_ids(document: Any) -> list[str]:
    items = document["paths"].values()
    return [item[method]["operationId"] for item in items for method in METHODS & item.keys()]


def test_the_compiled_form_is_that_of_the_sources(tmp_path: Path):
    compile_contract(OPENAPI, tmp_path)

    for name in ("start.json", "openapi.json", "index.json"):
        assert (tmp_path / name).read_bytes() == (COMPILED / name).read_bytes()


def test_every_operation_stands_once_in_every_source(document: Document, whole: Any):
    contract = operation_ids(source("openapi.yaml"))
    added = operation_ids(source("sdk.yaml")) + operation_ids(source("extensions.yaml"))

    assert len(contract) == 281
    assert not [name for name, count in Counter(contract + added).items() if count > 1]
    assert set(contract + added) == set(source("operations.yaml"))
    assert set(contract + added) == set(operation_ids(whole)) == set(document.operations)


def test_every_departure_has_its_reason():
    for action in source("overlay.yaml")["actions"]:
        assert len(action["description"]) >= len("As above."), action["target"]


def test_every_operation_has_a_summary_of_its_own(document: Document):
    summaries = Counter(operation.summary for operation in document.operations.values())

    assert max(summaries.values()) == 1
    assert all(0 < len(summary) < 80 and "\n" not in summary for summary in summaries)


def test_every_operation_describes_every_error(document: Document):
    wanted = {400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504}
    for operation_id, operation in document.operations.items():
        if operation.tag != "Service":
            described = document.operation(operation_id)["responses"]

            assert wanted <= {int(status) for status in described}


def test_every_schema_is_valid_json_schema(whole: Any):
    for name, schema in whole["components"]["schemas"].items():
        draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

        assert jsonschema_rs.meta.is_valid(draft), name


def test_the_compiled_document_has_no_openapi_3_0(document: Document):
    text = document.text()

    assert b'"nullable":' not in text
    assert b'"oneOf":' not in text
    assert b'"exclusiveMinimum":true' not in text
    assert b"$recursiveRef" not in text


def test_slices_of_the_document_are_its_nodes(document: Document, whole: Any):
    get_model = whole["paths"]["/models/{model}"]["get"]
    for name, schema in whole["components"]["schemas"].items():
        assert orjson.loads(document.component("schemas", name)) == schema

    assert document.operation("retrieveModel") == get_model


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OPENAPI, tmp_path / "openapi"))


def test_a_stale_compiled_contract_names_the_command_that_builds_it(sources: Path):
    (sources / "operations.yaml").write_text("changed")

    with pytest.raises(ContractMissing, match="make setup"):
        load_document(COMPILED, sources)


def test_a_missing_compiled_contract_names_the_command_that_builds_it(tmp_path: Path):
    with pytest.raises(ContractMissing, match="make setup"):
        load_document(tmp_path)


def small(target: Path, **changes: str) -> Path:
    """Sources of one operation, `listThings`."""
    texts = {
        "openapi": """
            openapi: 3.1.0
            tags: []
            paths: {/things: {get: {operationId: listThings, tags: [Things], responses: {}}}}
            components: {schemas: {}}
            """,
        "sdk": "{paths: {}, components: {}}",
        "overlay": """
            actions:
            - {target: "$.paths['/things'].get", description: why, update: {summary: List things}}
            """,
        "extensions": "{tags: [], paths: {}, components: {}}",
        "operations": "listThings: upstream",
    }
    for name, text in {**texts, **changes}.items():
        (target / f"{name}.yaml").write_text(text)
    return target


def test_a_running_server_keeps_the_contract_that_it_has_loaded(tmp_path: Path):
    compiled = tmp_path / "compiled"
    compile_contract(small(tmp_path), compiled)
    loaded, text = load_document(compiled, tmp_path), (compiled / "openapi.json").read_bytes()

    longer = (tmp_path / "overlay.yaml").read_text().replace("List things", "List all things")
    compile_contract(small(tmp_path, overlay=longer), compiled)

    assert loaded.text() == text
    assert loaded.operation("listThings")["operationId"] == "listThings"


def test_sources_in_step_compile(tmp_path: Path):
    compile_contract(small(tmp_path), tmp_path / "compiled")

    assert list(load_document(tmp_path / "compiled", tmp_path).operations) == ["listThings"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"operations": "{}"}, "has no entry for listThings"),
        ({"operations": "{listThings: upstream, more: upstream}"}, "names more"),
        ({"overlay": "actions: []"}, "no summary for listThings"),
        (
            {"extensions": "{tags: [], paths: {/things: {get: {}}}}"},
            "extensions.yaml redefines get of /things",
        ),
        ({"sdk": "{paths: {/things: {get: {}}}}"}, "sdk.yaml redefines get of /things"),
        (
            {"extensions": "{tags: [], paths: {/x: {$ref: '#/components/schemas/No'}}}"},
            "refers to #/components/schemas/No",
        ),
    ],
)
def test_sources_out_of_step_are_refused(tmp_path: Path, changes: Any, complaint: str):
    with pytest.raises(ContractError, match=complaint):
        compile_contract(small(tmp_path, **changes), tmp_path / "compiled")
