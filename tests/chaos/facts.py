"""Acknowledged objects, and checks that they survive the death of any process."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from llm_backend.json_types import JsonObject

__all__ = ["ENDED", "Facts", "Violation", "pages"]


ENDED = {"completed", "failed", "cancelled", "expired", "incomplete"}


class Violation(AssertionError):
    """The server has broken a promise."""


@dataclass(kw_only=True)
class Facts:
    """By id: what was acknowledged. A fact that is being changed is taken out until it is known
    how it ended."""

    chats: dict[str, Any] = field(default_factory=dict)  # what was said
    responses: dict[str, Any] = field(default_factory=dict)  # the texts of the output
    background: set[str] = field(default_factory=set)
    conversations: dict[str, list[str]] = field(default_factory=dict)  # texts, in their order
    files: dict[str, bytes] = field(default_factory=dict)
    vector_files: dict[tuple[str, str], str] = field(default_factory=dict)  # a word to be found
    used: set[str] = field(default_factory=set)  # files that batches and vector stores read
    batches: dict[str, list[str]] = field(default_factory=dict)  # the names of its lines
    keys: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, None] = field(default_factory=dict)  # paths
    checked: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # how work that outlives requests did

    async def check(self, client: httpx.AsyncClient, most: int | None = None) -> None:
        """All that needs no waiting; of each kind `most`, the latest. Raises `Violation`."""
        since = None if most is None else -most
        for id, said in list(self.chats.items())[since:]:
            stored = await self._get(client, f"/chat/completions/{id}")
            _same(f"chat {id}", stored["choices"][0]["message"]["content"], said)
        for id, texts in list(self.responses.items())[since:]:
            stored = await self._get(client, f"/responses/{id}")
            _same(f"response {id}", texts_of(stored), texts)
        for id, texts in list(self.conversations.items())[since:]:
            items = await pages(client, f"/conversations/{id}/items", order="asc")
            _same(f"conversation {id}", [_text(item) for item in items], texts)
            self.checked["conversations"] += 1
        for id, content in list(self.files.items())[since:]:
            await self._check_file(client, id, content)
        for id, key in list(self.keys.items())[since:]:
            answer = await client.get("/models", headers={"authorization": f"Bearer {key}"})
            _same(f"key {id}", answer.status_code, 200)
            self.checked["keys"] += 1
        for path in list(self.deleted)[since:]:
            answer = await client.get(path)
            _same(f"deleted {path}", answer.status_code, 404)
            self.checked["deleted"] += 1

    async def _check_file(self, client: httpx.AsyncClient, id: str, content: bytes) -> None:
        answer = await client.get(f"/files/{id}/content")
        _same(f"file {id}", answer.status_code, 200)
        _same(f"bytes of {id}", _digest(answer.content), _digest(content))
        self.checked["files"] += 1

    async def check_lists(self, client: httpx.AsyncClient) -> None:
        """Checks that unacknowledged objects are complete or absent. Raises `Violation`."""
        for file in await pages(client, "/files"):
            answer = await client.get(f"/files/{file['id']}/content")
            _same(f"listed file {file['id']}", answer.status_code, 200)
            _same(f"size of {file['id']}", len(answer.content), file["bytes"])
            self.checked["listed files"] += 1
        for chat in await pages(client, "/chat/completions"):
            messages = await pages(client, f"/chat/completions/{chat['id']}/messages")
            _same(f"messages of {chat['id']}", len(messages), 1)
            self.checked["listed chats"] += 1
        for batch in await pages(client, "/batches"):
            self.batches.setdefault(batch["id"], [])

    async def check_ended(self, client: httpx.AsyncClient, *, vectors: bool) -> list[str]:
        """The work that has not ended yet, by its path; what has is as it must be. Raises
        `Violation`."""
        left = []
        for id in list(self.background):
            response = await self._get(client, f"/responses/{id}")
            if response["status"] not in ENDED:
                left.append(f"/responses/{id}")
                continue
            self.ended[f"response {response['status']}"] += 1
            self.background.discard(id)
            self.responses[id] = texts_of(response)
        for id, names in list(self.batches.items()):
            batch = await self._get(client, f"/batches/{id}")
            if batch["status"] not in ENDED:
                left.append(f"/batches/{id}")
                continue
            self.ended[f"batch {batch['status']}"] += 1
            await self._check_batch(client, batch, names)
            del self.batches[id]
        if vectors:
            left += await self._check_vector_files(client)
        return left

    async def _check_batch(
        self, client: httpx.AsyncClient, batch: JsonObject, names: list[str]
    ) -> None:
        found: Counter[str] = Counter()
        for kind in ("output_file_id", "error_file_id"):
            if batch.get(kind):
                content = await client.get(f"/files/{batch[kind]}/content")
                _same(f"{kind} of {batch['id']}", content.status_code, 200)
                lines = content.text.splitlines()
                found.update(
                    httpx.Response(200, content=line).json()["custom_id"] for line in lines
                )
        _same(f"lines of {batch['id']} told twice", [one for one in found if found[one] > 1], [])
        if names:
            _same(f"lines of {batch['id']}", sorted(found), sorted(names))
            _same(f"counts of {batch['id']}", batch["request_counts"]["total"], len(names))

    async def _check_vector_files(self, client: httpx.AsyncClient) -> list[str]:
        left = []
        for (store, id), word in list(self.vector_files.items()):
            path = f"/vector_stores/{store}/files/{id}"
            file = await self._get(client, path)
            if file["status"] == "in_progress":
                left.append(path)
                continue
            reason = (file["last_error"] or {}).get("code")
            self.ended[f"vector file {file['status']} {reason or ''}".rstrip()] += 1
            if file["status"] == "failed":
                _same(f"reason of {path}", reason, "server_error")
            else:
                _same(f"status of {path}", file["status"], "completed")
                query = {"query": word, "max_num_results": 50}
                answer = await client.post(f"/vector_stores/{store}/search", json=query)
                _same(f"search in {store}", answer.status_code, 200)
                _same(
                    f"{word} in {path}",
                    id in [hit["file_id"] for hit in answer.json()["data"]],
                    True,
                )
            del self.vector_files[store, id]
        return left

    async def _get(self, client: httpx.AsyncClient, path: str) -> JsonObject:
        answer = await client.get(path)
        _same(
            path, (answer.status_code, answer.text if answer.status_code != 200 else ""), (200, "")
        )
        self.checked[path.split("/")[1]] += 1
        found: JsonObject = answer.json()
        return found


async def pages(client: httpx.AsyncClient, path: str, **query: str) -> list[JsonObject]:
    """All items of a list. Raises `Violation` where two pages have the same."""
    found: list[JsonObject] = []
    after: dict[str, str] = {}
    while True:
        answer = await client.get(path, params={**query, "limit": "100", **after})
        _same(path, answer.status_code, 200)
        page = answer.json()
        found += page["data"]
        if not page["has_more"]:
            break
        after = {"after": page["data"][-1]["id"]}
    ids = Counter(item["id"] for item in found if "id" in item)
    _same(f"items of {path} listed twice", [id for id, number in ids.items() if number > 1], [])
    return found


def texts_of(response: JsonObject) -> list[str]:
    """The texts of a response's output."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return [_text(item) for item in messages]


def _text(item: JsonObject) -> str:
    return "".join(part.get("text", "") for part in item["content"])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Violation(f"{what}: {str(found)[:300]!r} instead of {str(expected)[:300]!r}")
