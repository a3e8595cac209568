"""The mix of operations: each may fail while processes are killed; each acknowledged result is a
fact that is checked later."""

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

import httpx

from llm_backend.json_types import JsonObject
from tests.chaos.asking import LOCAL, RELAYED, Refused
from tests.chaos.facts import Facts, texts_of
from tests.chaos.media import Media
from tests.chaos.other_apis import OtherApis
from tests.chaos.texts import Texts
from tests.voice import PROGRAM
from tests.whisper_models import can_transcribe

__all__ = ["Mix"]

_PROJECT = "/organization/projects/proj_default"


class Mix(OtherApis, Media, Texts):
    """Operations drawn at random, by one of several clients."""

    def __init__(
        self, client: httpx.AsyncClient, address: str, facts: Facts, draw: random.Random
    ) -> None:
        super().__init__(client, address, facts, draw)
        self.done: Counter[str] = Counter()
        operations: list[Callable[[], Awaitable[None]]] = [
            self.chat, self.chat, self.streamed_chat, self.response, self.streamed_response,
            self.background, self.conversation, self.file, self.upload, self.batch, self.key,
            self.vectors, self.delete_chat, self.delete_file, self.message, self.streamed_message,
            self.ollama_chat, self.ollama_generate, self.decision, self.detached_chat,
            self.client_secret, self.realtime, self.image, self.completion, self.moderation,
            self.rerank, self.compaction, self.mcp_chat, self.socket_response,
        ]  # fmt: skip
        if can_transcribe():
            operations.append(self.transcription)
        if shutil.which(PROGRAM) and find_spec("av"):
            operations.append(self.speech)
        self._operations = operations

    async def one(self) -> None:
        """Does one."""
        operation = self._draw.choice(self._operations)
        name = operation.__name__
        try:
            await operation()
            self.done[name] += 1
        except Refused as refused:
            self.refused[f"{name} {refused}"] += 1
        except httpx.TransportError as error:
            self.refused[f"{name} {type(error).__name__}"] += 1
            await asyncio.sleep(0.2)

    async def chat(self) -> None:
        """A chat that must be stored."""
        body = self._chat_body()
        told = await self._post("/chat/completions", body)
        said = told["choices"][0]["message"]["content"]
        self._check_said(body, body["messages"][0]["content"], said)
        self._facts.chats[told["id"]] = said

    async def streamed_chat(self) -> None:
        """The same as events: it counts as told by its `[DONE]`."""
        body = self._chat_body()
        id, said = await self._chat_chunks(self._events("/chat/completions", body))
        self._check_said(body, body["messages"][0]["content"], said)
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
        raise Refused("cut off")

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
        bodies = {
            name: {**self._chat_body(model=self._draw.choice([LOCAL, RELAYED])), "max_tokens": 2}
            for name in names
        }
        words = {name: body["messages"][0]["content"] for name, body in bodies.items()}
        self._facts.of_batches.update(words.values())
        url = "/v1/chat/completions"
        lines = [
            {"custom_id": name, "method": "POST", "url": url, "body": body}
            for name, body in bodies.items()
        ]
        content = "\n".join(map(json.dumps, lines)).encode()
        file = await self._uploaded(content, "batch", "lines.jsonl")
        body = {"endpoint": url, "completion_window": "24h"}
        batch = await self._post("/batches", {**body, "input_file_id": file})
        self._facts.batches[batch["id"]] = {
            name: words[name] if body["model"] == RELAYED else None for name, body in bodies.items()
        }

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
        """Deletes a chat that was acknowledged."""
        await self._delete(self._facts.chats, "/chat/completions")

    async def delete_file(self) -> None:
        """Deletes a file that nothing uses."""
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
        message = {"role": "user", "content": self._new_word()}
        model = model or self._draw.choice([LOCAL, RELAYED])
        return {"model": model, "messages": [message], "max_tokens": 8, "store": True}

    def _response_body(self) -> JsonObject:
        body: JsonObject = {"model": LOCAL, "input": self._word(), "max_output_tokens": 16}
        if self._facts.responses and self._draw.random() < 0.5:
            body["previous_response_id"] = self._draw.choice(sorted(self._facts.responses))
        return body
