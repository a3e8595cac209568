"""Chats by the APIs of others, answers that go on without their client, decisions, and realtime
sessions."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from llm_backend.json_types import JsonObject
from tests.chaos.asking import LOCAL, RELAYED, Asking, Refused
from tests.chaos.facts import COUNTED

__all__ = ["OtherApis"]

_QUESTION = {
    "type": "choice",
    "instructions": "Who shall answer?",
    "choices": [{"value": "shipping"}, {"value": "sales"}, {"value": "sales and shipping"}],
}
_ROUNDING = 0.05  # cells have half precision, and cached ones were computed in other batches
_SECRET_S = 7200
_SESSION_S = 300
_REFUSALS = (409, 429, 500, 502, 503, 504)


class OtherApis(Asking):
    """Operations that are like chats."""

    async def message(self) -> None:
        """A message of Anthropic's API."""
        body, word = self._message_body()
        answer = await self._client.post("/messages", json=body, headers=self._counted())
        told = self._body(answer)
        self._answered(body, word, "".join(block["text"] for block in told["content"]))

    async def streamed_message(self) -> None:
        """The same as events: it counts as told by its `message_stop`."""
        body, word = self._message_body()
        said = ""
        async for data in self._events("/messages", body, self._counted()):
            event = json.loads(data)
            if event["type"] == "error":
                raise Refused("error event")
            if event["type"] == "content_block_delta":
                said += event["delta"]["text"]
            if event["type"] == "message_stop":
                self._answered(body, word, said)
                return
        raise Refused("cut off")

    async def ollama_chat(self) -> None:
        """A chat of Ollama's API, streamed as lines."""
        word = self._new_word()
        messages = [{"role": "user", "content": word}]
        await self._ollama("/api/chat", {"messages": messages}, word)

    async def ollama_generate(self) -> None:
        """A generation of Ollama's API."""
        word = self._new_word()
        await self._ollama("/api/generate", {"prompt": word}, word)

    async def decision(self) -> None:
        """A decision: always about the same, which has the same answer."""
        body = {"model": LOCAL, "input": "The box was torn.", "questions": [_QUESTION]}
        (answer,) = (await self._post("/decisions", body))["answers"]
        found = {one["value"]: one["probability"] for one in answer["probabilities"]}
        first = self._facts.decisions.setdefault("first", found)
        self._check("labels", sorted(found), sorted(first))
        is_far = [one for one in first if abs(found.get(one, 0) - first[one]) > _ROUNDING]
        self._check(f"probabilities {found} beside {first}", is_far, [])

    async def detached_chat(self) -> None:
        """A chat whose client leaves, and follows it again."""
        id, deaths, word = uuid.uuid4().hex, self._facts.deaths, self._new_word()
        body = {**self._body_of_chat(word), "store": True}
        head = {"x-llm-backend-detached": id}
        chat_id = ""
        async for event in self._events("/chat/completions", body, head):
            chat_id = json.loads(event).get("id", "") if event != "[DONE]" else chat_id
            break
        if not chat_id:
            raise Refused("error event")
        try:
            followed, said = await self._chat_chunks(self._followed(id))
        except Refused:
            if deaths == self._facts.deaths:  # over before it was followed
                self._facts.detached.append(chat_id)
            raise
        self._check("id of a detached chat", followed, chat_id)
        self._check_said(body, word, said)
        self._facts.chats[chat_id] = said

    async def _followed(self, id: str) -> AsyncIterator[str]:
        """Yields the events of a detached chat, after the one with its messages."""
        async with self._client.stream("GET", f"/chat/detached/{id}") as answer:
            if answer.status_code != 200:
                raise Refused(f"follow {answer.status_code}")
            is_first = True
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and not is_first:
                    yield line.removeprefix("data: ")
                is_first = is_first and not line

    async def client_secret(self) -> None:
        """A client secret, which opens sessions from now on."""
        session = {"type": "realtime", "model": LOCAL, "output_modalities": ["text"]}
        expires_after = {"anchor": "created_at", "seconds": _SECRET_S}
        body = {"session": session, "expires_after": expires_after}
        told = await self._post("/realtime/client_secrets", body)
        self._facts.secrets.append(told["value"])

    async def realtime(self) -> None:
        """A realtime session of some responses, with the key or a client secret."""
        key = self._client.headers["authorization"]
        if self._facts.secrets and self._draw.random() < 0.5:
            key = f"Bearer {self._draw.choice(self._facts.secrets)}"
        url = f"{self._address.replace('http', 'ws')}/v1/realtime?model={LOCAL}"
        try:
            opened = connect(url, additional_headers={"authorization": key}, open_timeout=None)
            async with asyncio.timeout(_SESSION_S), opened as socket:
                for _ in range(self._draw.randint(1, 3)):
                    await self._realtime_response(socket)
        except InvalidStatus as refused:
            status = refused.response.status_code
            self._check("refusal of a session", status in _REFUSALS and status, status)
            raise Refused(str(status)) from refused
        except TimeoutError:
            self.wrong[f"a session that did not end in {_SESSION_S} s"] += 1
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError) as error:
            raise Refused(type(error).__name__) from error

    async def _realtime_response(self, socket: ClientConnection) -> None:
        content = [{"type": "input_text", "text": self._new_word()}]
        item = {"type": "message", "role": "user", "content": content}
        response = {"output_modalities": ["text"], "max_output_tokens": 16}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create", "response": response}))
        said, created = "", 0
        async for message in socket:
            event: JsonObject = json.loads(message)
            created += event["type"] == "response.created"
            if event["type"] == "error":
                error = event["error"]
                self._check(f"error event {error}", error["type"], "server_error")
                raise Refused("error event")
            if event["type"] == "response.output_text.delta":
                said += event["delta"]
            if event["type"] == "response.done":
                break
        else:
            raise Refused("cut off")
        self._check("responses to one event", created, 1)
        done = event["response"]
        if done["status"] == "failed":
            raise Refused("failed")
        self._check("status of a response", done["status"] in ("completed", "incomplete"), True)
        self._check("text of a response", "".join(_texts(done)), said)

    async def _ollama(self, path: str, asked: JsonObject, word: str) -> None:
        model = self._draw.choice([LOCAL, RELAYED])
        body: JsonObject = {"model": model, **asked, "options": {"num_predict": 8}}
        said = ""
        async for line in self._lines(f"{self._address}{path}", body, self._counted()):
            told = json.loads(line)
            if "error" in told:
                raise Refused("error line")
            said += told["response"] if "response" in told else told["message"]["content"]
            if told["done"]:
                self._answered(body, word, said)
                return
        raise Refused("cut off")

    def _counted(self) -> dict[str, str]:
        """Counts a request that is about to be sent; returns its headers."""
        self._facts.asked[COUNTED] += 1
        return {"authorization": f"Bearer {self._facts.counted_key}"}

    def _answered(self, body: JsonObject, word: str, said: str) -> None:
        self._check_said(body, word, said)
        if body["model"] == LOCAL:  # stored before its end; others are written behind it
            self._facts.answered[word] = said

    def _message_body(self) -> tuple[JsonObject, str]:
        word = self._new_word()
        return {**self._body_of_chat(word), "max_tokens": 8}, word

    def _body_of_chat(self, word: str) -> JsonObject:
        model = self._draw.choice([LOCAL, RELAYED])
        return {"model": model, "messages": [{"role": "user", "content": word}], "max_tokens": 8}


def _texts(response: JsonObject) -> Iterator[str]:
    for item in response["output"]:
        for part in item.get("content", ()):
            yield part.get("text", "")
