"""Chains of operations along the document's links: what was made can be got, listed and changed,
and is gone once it was deleted.

schemathesis follows the links; how a chain begins is told here, so that something is made. What
becomes of arbitrary bodies is another test's business.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import CHECKS, load_all_checks

from llm_backend.contract import load_document
from tests.engine.gguf_models import write_bert
from tests.engine.pocket_voice import write_pocket_voice
from tests.media_files import wav
from tests.serving import serve

LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a"}}'
ITEM = {"type": "message", "role": "user", "content": "Hello"}

# What operations are given that take no arbitrary body, and those that take a form.
BODIES: dict[str, Any] = {
    "createChatCompletion": {
        "model": "builtin", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1,
    },
    "createResponse": {"model": "builtin", "input": "Hi", "max_output_tokens": 16},
    "createConversation": {"items": [ITEM]},
    "createConversationItems": {"items": [ITEM]},
    "createVectorStore": {"name": "cats"},
    "searchVectorStore": {"query": "cat"},
    "createUpload": {
        "filename": "a.txt", "purpose": "assistants", "bytes": 4, "mime_type": "text/plain",
    },
}  # fmt: skip
FORMS = {
    "createFile": {"file": b"text", "purpose": "assistants"},
    "addUploadPart": {"data": b"text"},
    "createVoiceConsent": {"recording": wav(1), "name": "Ada", "language": "en-US"},
}
IN_A_STORE = ("createVectorStoreFile", "createVectorStoreFileBatch")
BEGINNINGS = (
    *IN_A_STORE,
    "createChatCompletion", "createResponse", "createConversation", "createFile", "createUpload",
    "createBatch", "createVectorStore", "createVoiceConsent",
)  # fmt: skip
load_all_checks()
RULES = CHECKS.get_by_names([
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "use_after_free", "ensure_resource_availability",
])  # fmt: skip
EXAMPLES, STEPS, ROUNDS = 3, 12, 6  # more rounds only until every operation was well answered once
NEVER_WELL = {
    "cancelResponse": "what was not begun in the background cannot be cancelled",
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The document of a served server, with its address, and with the bodies that are given."""
    folder = tmp_path_factory.mktemp("chained")
    voice, projector = write_pocket_voice(folder / "pocket")  # consents need one
    embedder = str(write_bert(folder / "embeds.gguf"))
    models = ["builtin", embedder, {"path": str(voice), "mmproj": str(projector)}]
    config = folder / "config.yaml"
    config.write_text(json.dumps({"models": models, "context_tokens": 512}))
    with serve(folder / "data", "--config", str(config)) as served:
        told = httpx.get(f"{served.base_url}/openapi.json").json()
        for name, body in {**BODIES, **bodies_of_files(served.base_url)}.items():
            described(told, name)["requestBody"]["content"] = {
                "application/json": {"schema": {"const": body}}
            }
        store = httpx.post(f"{served.base_url}/vector_stores", json={}).json()["id"]
        for name in IN_A_STORE:
            described(told, name)["parameters"] = [
                {"name": "vector_store_id", "in": "path", "required": True,
                 "schema": {"const": store}}
            ]  # fmt: skip
        yield {**told, "servers": [{"url": served.base_url}]}


def described(document: dict[str, Any], name: str) -> dict[str, Any]:
    """An operation as the document has it."""
    operation = load_document().operations[name]
    return document["paths"][operation.path][operation.method.lower()]


def bodies_of_files(base_url: str) -> dict[str, Any]:
    """The bodies that name files, which are uploaded."""

    def uploaded(purpose: str, text: bytes) -> str:
        files, data = {"file": ("a", text)}, {"purpose": purpose}
        return httpx.post(f"{base_url}/files", files=files, data=data).json()["id"]

    text, lines = uploaded("assistants", b"the cat sat"), uploaded("batch", LINE)
    return {
        "createBatch": {
            "input_file_id": lines, "endpoint": "/v1/embeddings", "completion_window": "24h",
        },
        "createVectorStoreFile": {"file_id": text},
        "createVectorStoreFileBatch": {"file_ids": [text]},
    }  # fmt: skip


@functools.cache
def links() -> dict[str, set[str]]:
    """The operations that each operation links to, all of them answered here."""
    known = load_document()
    document = json.loads(known.text())
    local = {name for name, one in known.operations.items() if one.answered_by == "local"}
    found = {}
    for name in local:
        answer = described(document, name)["responses"].get("200", {})
        if targets := {link["operationId"] for link in answer.get("links", {}).values()} & local:
            found[name] = targets
    return found


def reached_from(beginning: str) -> set[str]:
    """Everything that its chains come to."""
    known, reached, ahead = links(), set(), {beginning}
    while ahead:
        reached |= ahead
        ahead = set().union(*(known.get(name, set()) for name in ahead)) - reached
        ahead -= set(BEGINNINGS)  # those have chains of their own
    return reached


def test_every_operation_that_is_linked_is_in_a_chain():
    reached = set().union(*(reached_from(name) for name in BEGINNINGS))

    assert set(links()) <= reached


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_created_objects_can_be_used_until_they_are_deleted(document, beginning):
    operations = reached_from(beginning)
    wanted, seen = operations - set(NEVER_WELL), Counter()
    for seed in range(ROUNDS):
        if not wanted <= {name for name, status in seen if status == 200}:
            seen += chained(document, beginning, operations, seed)

    assert not [answer for answer in seen if answer[1] >= 500], seen
    assert wanted <= {name for name, status in seen if status == 200}, seen


def chained(document: dict[str, Any], beginning: str, operations: set[str], seed: int) -> Counter:
    """Number of answers by operation and status."""
    file = Path(__file__).with_name("schemathesis.toml")
    loaded = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_path(file))
    loaded.config.base_url = document["servers"][0]["url"]
    seen: Counter = Counter()

    class Chains(loaded.include(operation_id=sorted(operations)).as_state_machine()):
        def step(self, input):
            name = input.case.operation.definition.raw["operationId"]
            input.case.body = given(name, input.case.body)
            return super().step(input)

        def after_call(self, response, case):
            seen[case.operation.definition.raw["operationId"], response.status_code] += 1

        def validate_response(self, response, case, **_):
            case.validate_response(response, checks=RULES)

    hypothesis.seed(seed)(Chains).run(
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
    )
    return seen


def given(name: str, body: Any) -> Any:
    """The body that an operation gets: a form that is told, or, of the values that come of a link,
    only those: others are made up beside them."""
    if name in FORMS:
        return dict(FORMS[name])
    if name == "completeUpload" and isinstance(body, dict):
        return {"part_ids": [one for one in body["part_ids"] if str(one).startswith("part_")]}
    return body
