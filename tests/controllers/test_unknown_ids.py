"""Unknown ids are a 404 that names the id, for every operation on stored objects."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from llm_backend.app import App
from llm_backend.contract import load_document
from tests.controllers.administration.conftest import ROOT_KEY, settings_for

KEPT = (
    "/batches", "/chat/completions", "/conversations", "/files", "/responses", "/uploads",
    "/vector_stores",
)  # fmt: skip
BODIES: dict[str, Any] = {
    "updateChatCompletion": {"metadata": {}},
    "updateConversation": {"metadata": {}},
    "createConversationItems": {"items": [{"role": "user", "content": "Hi"}]},
    "completeUpload": {"part_ids": ["part_none"]},
    "modifyVectorStore": {"name": "a"},
    "searchVectorStore": {"query": "a"},
    "createVectorStoreFile": {"file_id": "file-none"},
    "createVectorStoreFileBatch": {"file_ids": ["file-none"]},
    "updateVectorStoreFileAttributes": {"attributes": {}},
}
FORMS = {"addUploadPart": {"data": b"text"}}
OPERATIONS = sorted(
    name
    for name, one in load_document().operations.items()
    if one.answered_by == "local" and one.path.startswith(KEPT) and "{" in one.path
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    app = App(settings_for(Path(tmp_path_factory.mktemp("data"))))
    headers = {"authorization": f"Bearer {ROOT_KEY}"}
    transport = httpx.ASGITransport(app)
    async with (
        app.open(),
        httpx.AsyncClient(transport=transport, base_url="http://server/v1", headers=headers) as one,
    ):
        yield one


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_unknown_object_is_a_404_with_its_id(client: httpx.AsyncClient, name: str) -> None:
    operation = load_document().operations[name]
    path = re.sub(r"\{(\w+)\}", r"no-such-\1", operation.path)
    (first, *_) = re.findall(r"no-such-\w+", path)
    sent: dict[str, Any] = {"files": FORMS[name]} if name in FORMS else {}
    if name in BODIES:
        sent = {"json": BODIES[name]}
    answer = await client.request(operation.method, path, **sent)

    assert answer.status_code == 404
    assert f"`{first}`" in answer.json()["error"]["message"]
