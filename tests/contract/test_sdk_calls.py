"""Every call of the official SDK is an operation here, with the same method and path; each of its
WebSockets is served here, or named with the reason.

The calls are read from the SDK's own classes, so that a newer SDK that calls more fails this test
until `llm-backend contract sdk` has added it.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
import yaml

from llm_backend.contract import Document
from llm_backend.contract.release.sdk_update import prepare_sdk_update
from llm_backend.contract.sdk.calls import SdkCall, read_calls
from llm_backend.contract.sdk.events import read_sockets
from llm_backend.contract.sdk.operations import key_of
from llm_backend.contract.sdk.schemas import SdkSchemas

OPENAPI = Path(__file__).parents[2] / "openapi"
OVERLAY = """\
overlay: 1.0.0
actions:
"""

SERVED_SOCKETS = {"/realtime", "/responses"}
SOCKETS_NOT_SERVED = {
    "/realtime/translations": "its events report no usage, by which sessions are charged",
    "/live/sessions": "usage of live sessions is not charged here, so they are not relayed",
    "/live/sessions/{session_id}/attach": "as above",
    "/live/sessions/{session_id}/fork": "as above",
}

# Refused by name: the controllers and the reader of queries know which fields they support.
UNKNOWN_PARAMETERS = {
    "createResponse": {"access_programs", "background_options", "image"},
    "Compactconversation": {"image"},
    "createImage": {
        "complexity", "frame_count", "frame_duration_ms", "safety_identifier", "svg",
    },
    "createImageEdit": {
        "complexity", "frame_count", "frame_duration_ms", "markup", "safety_identifier", "svg",
    },
    "usage-costs": {"line_items"},
    "createVoice": {"model", "prompt", "script_hint"},  # of a voice by a description
}  # fmt: skip


@pytest.fixture(scope="module")
def clients() -> dict[str, list[SdkCall]]:
    """The calls of both clients."""
    return {"sync": read_calls(), "async": read_calls(is_async=True)}


@pytest.mark.parametrize("client", ["sync", "async"])
def test_every_method_of_the_sdk_has_an_operation(
    document: Document, clients: dict[str, list[SdkCall]], client: str
) -> None:
    operations = {key_of(each.method, each.path) for each in document.operations.values()}
    calls = clients[client]

    assert len({call.name for call in calls}) > 380
    assert {f"{call.name}: {call.method} {call.path}" for call in calls
            if key_of(call.method, call.path) not in operations} == set()  # fmt: skip


def test_synchronous_and_asynchronous_clients_call_the_same(
    clients: dict[str, list[SdkCall]],
) -> None:
    calls = {name: {(each.name, each.method, each.path) for each in client}
             for name, client in clients.items()}  # fmt: skip

    assert calls["sync"] == calls["async"]


def test_update_to_the_installed_sdk_only_removes_and_lists_operations_that_it_lacks(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "openapi"
    shutil.copytree(OPENAPI, folder)
    operations = (folder / "operations.yaml").read_text()
    sdk = yaml.load((folder / "sdk.yaml").read_text(), Loader=yaml.CSafeLoader)
    sdk["paths"]["/rooms"] = {"get": {"operationId": "see", "summary": "See", "responses": {}}}
    target = "$.paths['/rooms'].get"
    texts = {
        "sdk": yaml.dump(sdk, Dumper=yaml.CSafeDumper),
        "operations": operations + "see: {local: rooms}\n",
        "overlay": f'{OVERLAY}  - {{target: "{target}", update: {{deprecated: true}}}}\n',
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)

    update = prepare_sdk_update(folder)

    told = [line for line in update.report.splitlines() if line.startswith("- ")]
    assert told[0] == "- `GET /rooms`: operation removed"
    assert told[1].startswith(f"- dropped: `{target}`: $['paths'] has no '/rooms'")
    assert told[2:] == ["- `see` was answered by this server"]
    assert update.files["overlay.yaml"].strip() == OVERLAY.strip()
    assert update.files["operations.yaml"] == operations
    assert update.files["sdk.yaml"] == (OPENAPI / "sdk.yaml").read_text(), (
        "another SDK is installed"
    )


def test_every_websocket_of_the_sdk_is_served_or_named() -> None:
    assert {one.path for one in read_sockets()} == SERVED_SOCKETS | SOCKETS_NOT_SERVED.keys()


def test_every_parameter_of_a_local_operation_is_known_or_named(
    document: Document, clients: dict[str, list[SdkCall]]
) -> None:
    operations = {key_of(one.method, one.path): one for one in document.operations.values()}
    unknown: dict[str, set[str]] = {}
    for call in clients["sync"]:
        operation = operations[key_of(call.method, call.path)]
        if operation.answered_by == "local" and "?beta" not in call.path:
            known = known_parameters(document, operation.operation_id)
            sent = parameters_of(call) - known - call.headers.keys() - set(call.headers.values())
            unknown |= {operation.operation_id: sent} if sent else {}

    assert unknown == UNKNOWN_PARAMETERS


def parameters_of(call: SdkCall) -> set[str]:
    kinds = [one for kind in (call.params, call.query_params) if kind is not None
             for one in (get_args(kind) if get_origin(kind) is Union else (kind,))]  # fmt: skip
    named = {sent for kind in kinds for sent, _, _ in SdkSchemas().fields_of(kind).values()}
    return named - set(re.findall(r"\{([^}]+)\}", call.path))


def known_parameters(document: Document, operation_id: str) -> set[str]:
    described = document.operation(operation_id)
    bodies = described.get("requestBody", {}).get("content", {}).values()
    names = {one["name"].removesuffix("[]") for one in described.get("parameters", ())}
    return names.union(*(properties_of(document, each["schema"], set()) for each in bodies))


def properties_of(document: Document, schema: dict[str, Any], seen: set[str]) -> set[str]:
    """The fields of a schema and of all its branches."""
    names = set(schema.get("properties", ()))
    if "$ref" in schema and schema["$ref"] not in seen:
        name = schema["$ref"].rpartition("/")[2]
        component = json.loads(document.component("schemas", name))
        names |= properties_of(document, component, {*seen, schema["$ref"]})
    branches = [one for key in ("allOf", "anyOf") for one in schema.get(key, ())]
    return names.union(*(properties_of(document, one, seen) for one in branches))
