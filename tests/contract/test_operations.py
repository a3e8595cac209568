"""The table of operations, its reports, and the way of each request to its operation."""

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from llm_backend.contract import Document, as_json
from llm_backend.json_types import JsonValue
from tests.contract.conftest import url_of


def test_every_operation_is_reached_by_its_path(client: TestClient, document: Document):
    for operation in document.operations.values():
        response = client.request(operation.method, url_of(operation), json={})

        assert response.headers["content-type"] == "application/json"
        if response.status_code == 200:
            assert response.json()["operation"] == operation.operation_id
        else:
            assert response.status_code in (400, 415), operation.operation_id


def test_every_operation_is_reached_without_checks(client_for, document: Document):
    operations = [o for o in document.operations.values() if o.answered_by == "upstream"]
    with client_for(check_relayed=False) as client:
        for operation in operations:
            reached = client.request(operation.method, url_of(operation))

            assert reached.json()["operation"] == operation.operation_id


@pytest.mark.parametrize(
    ("path", "operation_id"),
    [
        ("/v1/models", "listModels"),
        ("/models", "listModels"),
        ("/v1/models/", "listModels"),
        ("/v1/models/owner/name", "retrieveModel"),
        ("/v1/models/owner%2Fname", "retrieveModel"),
        ("/healthz", "getHealth"),
        ("/v1/healthz", "getHealth"),
        ("/openapi.json", "getOpenapiDocument"),
    ],
)
def test_paths_are_understood_with_and_without_the_prefix(
    client: TestClient, path: str, operation_id: str
):
    assert client.get(path).json()["operation"] == operation_id


def test_fixed_paths_are_matched_before_parameters(client_for):
    with client_for(check_relayed=False) as client:
        assert client.post("/v1/threads/runs").json()["operation"] == "createThreadAndRun"
        assert client.post("/v1/threads/some").json()["operation"] == "modifyThread"


def test_every_local_handler_is_there(document: Document):
    for operation in document.operations.values():
        if operation.answered_by == "local":
            module = importlib.import_module(f"llm_backend.controllers.{operation.controller}")

            assert callable(getattr(module, operation.function)), operation.operation_id


def test_functions_are_named_like_operations(document: Document):
    names = {o.operation_id: o.function for o in document.operations.values()}

    assert names["createChatCompletion"] == "create_chat_completion"
    assert names["admin-api-keys-list"] == "admin_api_keys_list"
    assert len(set(names.values())) == len(names)


def test_the_table_of_operations_is_printed_as_json(document: Document):
    rows = {row["operationId"]: row for row in as_json(document.operations)}

    assert len(rows) == len(document.operations) > 281
    assert rows["createChatCompletion"] == {
        "operationId": "createChatCompletion",
        "method": "POST",
        "path": "/chat/completions",
        "tag": "Chat",
        "summary": "Create a chat completion",
        "answered": "local",
        "controller": "chat.create",
    }
    assert {row["answered"] for row in rows.values()} <= {"local", "upstream", "unsupported"}


def test_a_body_whose_schema_requires_fields_is_required(document: Document):
    described = json.loads(document.text())
    for operation in document.operations.values():
        body = described["paths"][operation.path][operation.method.lower()].get("requestBody", {})
        for content in body.get("content", {}).values():
            if required_fields(content["schema"], described):
                assert body.get("required"), operation.operation_id


def required_fields(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    parts = (required_fields(part, document) for part in schema.get("allOf", ()))
    return [*schema.get("required", ()), *(field for part in parts for field in part)]


def test_records_of_the_organization_have_bounds(document: Document):
    administration = [
        operation
        for operation in document.operations.values()
        if operation.answered_by == "local" and operation.path.startswith("/organization/")
    ]
    found = [
        f"{operation.operation_id}: {place}"
        for operation in administration
        for place in unbounded(document, body_schema(document, operation.operation_id), "body")
        if not place.endswith(".geography")  # refused if it has a value
    ]

    assert len(administration) > 40
    assert found == []


def body_schema(document: Document, operation_id: str) -> JsonValue:
    content = document.operation(operation_id).get("requestBody", {}).get("content", {})
    return content.get("application/json", {}).get("schema", {})


def unbounded(document: Document, schema: JsonValue, place: str) -> Iterator[str]:
    """The strings and lists in a schema that may be of any length."""
    if "$ref" in schema:
        schema = json.loads(document.component("schemas", schema["$ref"].rpartition("/")[2]))
    if "enum" in schema:
        return
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        bounds = {name: schema[name] for name in ("maxLength", "maxItems") if name in schema}
        yield from unbounded(document, one | bounds, place)
    if "string" in schema.get("type", ()) and "maxLength" not in schema:
        yield place
    if "array" in schema.get("type", ()) and "maxItems" not in schema:
        yield f"{place}[]"
    if "items" in schema:
        yield from unbounded(document, schema["items"], f"{place}[]")
    for name, one in schema.get("properties", {}).items():
        yield from unbounded(document, one, f"{place}.{name}")
