"""The mix of operations: each may fail while processes are killed; what it is told is a fact."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from llm_backend.json_types import JsonObject
from tests.chaos.facts import Facts, texts_of

__all__ = ["LOCAL", "RELAYED", "Mix"]

LOCAL, RELAYED = "builtin", "far"
_PROJECT = "/organization/projects/proj_default"
_MAY_BE = frozenset({409, 429, 499, 500, 502, 503, 504})  # while something dies beneath it


class _Refused(Exception):
    """The server did not do it, and said so."""


class Mix:
    """Operations drawn at random, by one of several clients."""

    def __init__(self, client: httpx.AsyncClient, facts: Facts, draw: random.Random) -> None:
        self._client = client
        self._facts = facts
        self._draw = draw
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()  # answers that are none even now
        operations: list[Callable[[], Awaitable[None]]] = [
            self.chat, self.chat, self.streamed_chat, self.response, self.streamed_response,
            self.background, self.conversation, self.file, self.upload, self.batch, self.key,
            self.vectors, self.delete_chat, self.delete_file,
        ]  # fmt: skip
        self._operations = operations

    async def one(self) -> None:
        """Do one."""
        operation = self._draw.choice(self._operations)
        name = operation.__name__
        try:
            await operation()
            self.done[name] += 1
        except _Refused as refused:
            self.refused[f"{name} {refused}"] += 1
        except httpx.TransportError as error:
            self.refused[f"{name} {type(error).__name__}"] += 1
            await asyncio.sleep(0.2)

    async def chat(self) -> None:
        """A chat that must be stored."""
        told = await self._post("/chat/completions", self._chat_body())
        self._facts.chats[told["id"]] = told["choices"][0]["message"]["content"]

    async def streamed_chat(self) -> None:
        """The same as events: it counts as told by its `[DONE]`."""
        id, said, is_done = "", "", False
        async for event in self._events("/chat/completions", self._chat_body()):
            if event == "[DONE]":
                is_done = True
                continue
            chunk = json.loads(event)
            if "error" in chunk:
                raise _Refused("error event")
            id = chunk["id"]
            said += (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""
        if not is_done:
            raise _Refused("cut off")
        self._facts.chats[id] = said

    async def response(self) -> None:
        """A response, of a thread where there is one."""
        response = await self._post("/responses", self._response_body())
        self._facts.responses[response["id"]] = texts_of(response)

    async def streamed_response(self) -> None:
        """The same as events."""
        async for event in self._events("/responses", {**self._response_body(), "stream": True}):
            told = json.loads(event) if event != "[DONE]" else {}
            if told.get("type") in ("response.completed", "response.incomplete"):
                self._facts.responses[told["response"]["id"]] = texts_of(told["response"])
                return
        raise _Refused("cut off")

    async def background(self) -> None:
        """One that outlives its request."""
        body = {**self._response_body(), "background": True}
        self._facts.background.add((await self._post("/responses", body))["id"])

    async def conversation(self) -> None:
        """A conversation, and items in it."""
        id = (await self._post("/conversations", {}))["id"]
        self._facts.conversations[id] = []
        for _ in range(self._draw.randint(1, 3)):
            words = [self._word() for _ in range(self._draw.randint(1, 3))]
            items = [{"role": "user", "content": word} for word in words]
            told = self._facts.conversations.pop(id)
            await self._post(f"/conversations/{id}/items", {"items": items})
            self._facts.conversations[id] = [*told, *words]

    async def file(self) -> None:
        """A file of some kilobytes, or a megabyte."""
        content = self._draw.randbytes(self._draw.choice([10, 3_000, 1_000_000]))
        await self._uploaded(content, "user_data", "a.bin", is_free=True)

    async def upload(self) -> None:
        """A file in parts."""
        parts = [self._draw.randbytes(50_000) for _ in range(self._draw.randint(1, 4))]
        content = b"".join(parts)
        body = {"filename": "b.txt", "purpose": "assistants", "mime_type": "text/plain"}
        upload = await self._post("/uploads", {**body, "bytes": len(content)})
        ids = []
        for part in parts:
            answer = await self._client.post(f"/uploads/{upload['id']}/parts", files={"data": part})
            ids.append(self._body(answer)["id"])
        completed = await self._post(f"/uploads/{upload['id']}/complete", {"part_ids": ids})
        self._facts.files[completed["file"]["id"]] = content

    async def batch(self) -> None:
        """A batch of some chats."""
        names = [f"line-{number}" for number in range(self._draw.randint(1, 70))]
        model = self._draw.choice([LOCAL, RELAYED])
        lines = [
            {
                "custom_id": name,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {**self._chat_body(model=model), "max_tokens": 2, "stream": False},
            }
            for name in names
        ]
        content = "\n".join(map(json.dumps, lines)).encode()
        file = await self._uploaded(content, "batch", "lines.jsonl")
        body = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = await self._post("/batches", {**body, "input_file_id": file})
        self._facts.batches[batch["id"]] = names

    async def key(self) -> None:
        """A key, which may be revoked again."""
        made = await self._post(f"{_PROJECT}/service_accounts", {"name": self._word()})
        id, value = made["api_key"]["id"], made["api_key"]["value"]
        self._facts.keys[id] = value
        if self._draw.random() < 0.3:
            del self._facts.keys[id]
            self._body(await self._client.delete(f"{_PROJECT}/api_keys/{id}"))
            self._facts.deleted[f"{_PROJECT}/api_keys/{id}"] = None

    async def vectors(self) -> None:
        """A vector store with some files, each with a word of its own."""
        store = (await self._post("/vector_stores", {"name": self._word()}))["id"]
        for _ in range(self._draw.randint(1, 2)):
            word = self._word()
            page = f"<html><h1>{word}</h1>" + "<p>the cat and the dog</p>" * 300
            name, content = self._draw.choice([("a.txt", f"{word} the cat\n"), ("a.html", page)])
            file = await self._uploaded(content.encode(), "user_data", name)
            await self._post(f"/vector_stores/{store}/files", {"file_id": file})
            self._facts.vector_files[store, file] = word

    async def delete_chat(self) -> None:
        """Delete a chat that was acknowledged."""
        await self._delete(self._facts.chats, "/chat/completions")

    async def delete_file(self) -> None:
        """Delete a file that nothing uses."""
        await self._delete(self._facts.files, "/files")

    async def _delete(self, known: dict[str, Any], path: str) -> None:
        free = sorted(known.keys() - self._facts.used)
        if free:
            id = self._draw.choice(free)
            del known[id]  # nothing is known of it until it is told
            self._body(await self._client.delete(f"{path}/{id}"))
            self._facts.deleted[f"{path}/{id}"] = None

    async def _uploaded(
        self, content: bytes, purpose: str, name: str, *, is_free: bool = False
    ) -> str:
        form = {"data": {"purpose": purpose}, "files": {"file": (name, content)}}
        id: str = self._body(await self._client.post("/files", **form))["id"]
        self._facts.files[id] = content
        if not is_free:
            self._facts.used.add(id)
        return id

    def _chat_body(self, model: str | None = None) -> JsonObject:
        message = {"role": "user", "content": self._word()}
        model = model or self._draw.choice([LOCAL, RELAYED])
        return {"model": model, "messages": [message], "max_tokens": 8, "store": True}

    def _response_body(self) -> JsonObject:
        body: JsonObject = {"model": LOCAL, "input": self._word(), "max_output_tokens": 16}
        if self._facts.responses and self._draw.random() < 0.5:
            body["previous_response_id"] = self._draw.choice(sorted(self._facts.responses))
        return body

    def _word(self) -> str:
        return "".join(
            self._draw.choice("bdfgklmnprst") + self._draw.choice("aeiou") for _ in "1234"
        )

    async def _post(self, path: str, body: JsonObject) -> JsonObject:
        return self._body(await self._client.post(path, json=body))

    def _body(self, answer: httpx.Response) -> JsonObject:
        if answer.status_code == 200:
            told: JsonObject = answer.json()
            return told
        path = answer.request.url.path
        is_elsewhere = answer.status_code == 501 and "/vector_stores" in path  # several processes
        if answer.status_code not in _MAY_BE and not is_elsewhere:
            self.wrong[f"{path} {answer.status_code} {answer.text[:200]}"] += 1
        raise _Refused(str(answer.status_code))

    async def _events(self, path: str, body: JsonObject) -> Any:
        request = {**body, "stream": True}
        async with self._client.stream("POST", path, json=request) as answer:
            if answer.status_code != 200:
                await answer.aread()
                self._body(answer)
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield line.removeprefix("data: ")
