"""Requests of the mix: what they are answered is a fact, a refusal, or wrong."""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator

import httpx

from llm_backend.json_types import JsonObject
from tests.chaos.facts import Facts

__all__ = ["LOCAL", "RELAYED", "Asking", "Refused"]

LOCAL, RELAYED = "builtin", "far"
# statuses that are allowed while a process is being killed
_MAY_BE = frozenset({409, 429, 499, 500, 502, 503, 504})
# What a server of several processes does not do.
_OF_ONE_PROCESS = ("/vector_stores",)


class Refused(Exception):
    """The server did not do it, and said so."""


class Asking:
    """A client of the server at an `address`."""

    def __init__(
        self, client: httpx.AsyncClient, address: str, facts: Facts, draw: random.Random
    ) -> None:
        self._client = client
        self._address = address
        self._facts = facts
        self._draw = draw
        self.refused: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()  # answers that are wrong even while processes die

    def _check(self, what: str, found: object, expected: object) -> None:
        """Notes an answer that is wrong."""
        if found != expected:
            self.wrong[f"{what}: {str(found)[:200]!r} instead of {str(expected)[:200]!r}"] += 1

    def _check_said(self, body: JsonObject, word: str, said: str) -> None:
        """Checks a chat's answer, which an upstream knows and a model does not."""
        if body["model"] == RELAYED:
            self._check("relayed answer", said, word)

    def _word(self) -> str:
        return "".join(
            self._draw.choice("bdfgklmnprst") + self._draw.choice("aeiou") for _ in "1234"
        )

    def _new_word(self) -> str:
        """Returns a word that no other request has."""
        return f"{self._word()}{next(self._facts.numbers)}"

    async def _post(self, path: str, body: JsonObject) -> JsonObject:
        return self._body(await self._client.post(path, json=body))

    def _body(self, answer: httpx.Response) -> JsonObject:
        self._require_answer(answer)
        told: JsonObject = answer.json()
        return told

    def _require_answer(self, answer: httpx.Response) -> None:
        """Raises `Refused` unless it is a 200."""
        if answer.status_code == 200:
            return
        path, text = answer.request.url.path, answer.text
        is_of_one = answer.status_code in (400, 501) and any(
            one in path + text for one in _OF_ONE_PROCESS
        )
        if answer.status_code not in _MAY_BE and not is_of_one:
            self.wrong[f"{path} {answer.status_code} {text[:200]}"] += 1
        raise Refused(str(answer.status_code))

    async def _lines(
        self, path: str, body: JsonObject, headers: dict[str, str] | None = None
    ) -> AsyncIterator[str]:
        request = {**body, "stream": True}
        opened = self._client.stream("POST", path, json=request, headers=headers)
        async with opened as answer:
            if answer.status_code != 200:
                await answer.aread()
                self._require_answer(answer)
            async for line in answer.aiter_lines():
                yield line

    async def _events(
        self, path: str, body: JsonObject, headers: dict[str, str] | None = None
    ) -> AsyncIterator[str]:
        async for line in self._lines(path, body, headers):
            if line.startswith("data: "):
                yield line.removeprefix("data: ")

    async def _chat_chunks(self, events: AsyncIterator[str]) -> tuple[str, str]:
        """Returns id and text of a streamed chat. Raises `Refused` for one without its end."""
        id, said = "", ""
        async for event in events:
            if event == "[DONE]":
                return id, said
            chunk = json.loads(event)
            if "error" in chunk:
                raise Refused("error event")
            id = chunk["id"]
            said += (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""
        raise Refused("cut off")
