"""Acknowledged objects, and checks that they survive the death of any process."""

import hashlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from llm_backend.json_types import JsonObject
from tests.chaos.far import colour_of_image

__all__ = ["COUNTED", "ENDED", "Facts", "Violation", "pages"]


COUNTED = "completions"
"""Usage of requests with a key of their own."""

ENDED = {"completed", "failed", "cancelled", "expired", "incomplete"}


class Violation(AssertionError):
    """The server has broken a promise."""


@dataclass(kw_only=True)
class Facts:
    """By id: what was acknowledged. A fact that is being changed is taken out until it is known how
    that ended. Batches: by the id of each line its expected answer, None if that is unknown."""

    chats: dict[str, Any] = field(default_factory=dict)  # what was said
    responses: dict[str, Any] = field(default_factory=dict)  # the texts of the output
    background: set[str] = field(default_factory=set)
    conversations: dict[str, list[str]] = field(default_factory=dict)  # texts, in their order
    files: dict[str, bytes] = field(default_factory=dict)
    vector_files: dict[tuple[str, str], str] = field(default_factory=dict)  # a word to be found
    used: set[str] = field(default_factory=set)  # files that batches and vector stores read
    batches: dict[str, dict[str, str | None]] = field(default_factory=dict)
    detached: list[str] = field(default_factory=list)  # chats that went on without their client
    answered: dict[str, str] = field(default_factory=dict)  # by the question: stored as chats
    images: dict[str, bytes] = field(default_factory=dict)  # their colours, by path
    secrets: list[str] = field(default_factory=list)  # client secrets of realtime sessions
    decisions: dict[str, dict[Any, float]] = field(default_factory=dict)
    audio: dict[str, str] = field(default_factory=dict)  # digests, by text
    due: set[tuple[str, str]] = field(default_factory=set)  # webhook events: type, and object
    asked: Counter[str] = field(default_factory=Counter)  # requests sent that usage counts
    began_at: int = field(default_factory=lambda: int(time.time()) - 60)
    counted_key: str = ""  # that of requests of `COUNTED` alone
    counted_key_id: str = ""
    of_batches: set[str] = field(default_factory=set)  # words that may be stored repeatedly
    deaths: int = 0
    numbers: Iterator[int] = field(default_factory=itertools.count)
    keys: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, None] = field(default_factory=dict)  # paths
    checked: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # how work that outlives requests did

    async def check(self, client: httpx.AsyncClient, most: int | None = None) -> None:
        """Checks all facts that need no waiting, of each kind at most the latest `most`. Raises
        `Violation`."""
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
        for path, colour in list(self.images.items())[since:]:
            answer = await client.get(path)
            _same(f"image {path}", answer.status_code, 200)
            _same(f"colour of {path}", colour_of_image(answer.content), colour)
            self.checked["images"] += 1
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
        asked: Counter[str] = Counter()
        for chat in await pages(client, "/chat/completions"):
            messages = await pages(client, f"/chat/completions/{chat['id']}/messages")
            _same(f"messages of {chat['id']}", len(messages), 1)
            word = _text(messages[0])
            asked[word] += 1
            if word in self.answered:
                said = chat["choices"][0]["message"]["content"]
                _same(f"answer to {word}", said, self.answered[word])
            self.checked["listed chats"] += 1
        _same("answers without a chat", [one for one in self.answered if one not in asked], [])
        twice = [one for one in asked if asked[one] > 1 and one not in self.of_batches]
        _same("chats stored twice", twice, [])
        for batch in await pages(client, "/batches"):
            self.batches.setdefault(batch["id"], {})

    async def check_usage(self, client: httpx.AsyncClient) -> None:
        """Checks that no request is counted twice: a process that is killed loses what it has not
        written, so fewer may be. Raises `Violation`."""
        for kind, asked in self.asked.items():
            query: dict[str, Any] = {"start_time": self.began_at, "bucket_width": "1d", "limit": 7}
            if kind == COUNTED:
                query["api_key_ids"] = self.counted_key_id
            answer = await client.get(f"/organization/usage/{kind}", params=query)
            _same(f"usage of {kind}", answer.status_code, 200)
            results = [one for day in answer.json()["data"] for one in day["results"]]
            counted = sum(one["num_model_requests"] for one in results)
            _same(f"{kind}: {counted} counted, {asked} asked", counted > asked, False)
            self.checked[f"{kind} counted"] += counted

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
            self.due.add((f"response.{response['status']}", id))
            self.background.discard(id)
            self.responses[id] = texts_of(response)
        for id, names in list(self.batches.items()):
            batch = await self._get(client, f"/batches/{id}")
            if batch["status"] not in ENDED:
                left.append(f"/batches/{id}")
                continue
            self.ended[f"batch {batch['status']}"] += 1
            self.due.add((f"batch.{batch['status']}", id))
            await self._check_batch(client, batch, names)
            del self.batches[id]
        for id in list(self.detached):
            path = f"/chat/completions/{id}"
            if (await client.get(path)).status_code != 200:
                left.append(path)
                continue
            self.detached.remove(id)
            self.checked["detached"] += 1
        if vectors:
            left += await self._check_vector_files(client)
        return left

    async def _check_batch(
        self, client: httpx.AsyncClient, batch: JsonObject, names: Mapping[str, str | None]
    ) -> None:
        found: Counter[str] = Counter()
        for kind in ("output_file_id", "error_file_id"):
            if batch.get(kind):
                content = await client.get(f"/files/{batch[kind]}/content")
                _same(f"{kind} of {batch['id']}", content.status_code, 200)
                for line in map(json.loads, content.text.splitlines()):
                    found[line["custom_id"]] += 1
                    if (expected := names.get(line["custom_id"])) and not line["error"]:
                        _same(f"line of {batch['id']}", _said(line["response"]), expected)
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


def _said(response: JsonObject) -> object:
    """Returns the text of a chat, or the body of another answer."""
    body = response["body"]
    return body["choices"][0]["message"]["content"] if response["status_code"] == 200 else body


def _text(item: JsonObject) -> str:
    content = item["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Violation(f"{what}: {str(found)[:300]!r} instead of {str(expected)[:300]!r}")
