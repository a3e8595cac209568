"""Texts that are completed, judged and ranked, responses over a WebSocket, and tools of `/mcp`."""

import asyncio
import json
from collections.abc import Sequence

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from llm_backend.json_types import JsonObject
from tests.chaos.asking import LOCAL, Asking, Refused
from tests.chaos.facts import texts_of

__all__ = ["RANKS", "Texts"]

RANKS = "ranks"
_DOCUMENTS = ("the cat ran", "dog", "the dog sat the cat")
_SOCKET_S = 300
_MAY_REFUSE = (409, 429, 500, 502, 503, 504)
_ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


class Texts(Asking):
    """Operations on texts that are no chats over HTTP."""

    async def completion(self) -> None:
        """A legacy completion, whose prompt is its beginning."""
        word = self._word()
        body = {"model": LOCAL, "prompt": word, "max_tokens": 4, "echo": True}
        (choice,) = (await self._post("/completions", body))["choices"]
        self._check("beginning of a completion", choice["text"][: len(word)], word)

    async def moderation(self) -> None:
        """A moderation: of the same text, which has the same scores."""
        body = {"model": LOCAL, "input": "The box was torn."}
        (result,) = (await self._post("/moderations", body))["results"]
        self._check_near("moderation", result["category_scores"], 0.25)

    async def rerank(self) -> None:
        """A ranking: of the same documents, which have the same relevance."""
        body = {"model": RANKS, "query": "the cat sat", "documents": [*_DOCUMENTS]}
        results = (await self._post("/rerank", body))["results"]
        scores = {str(one["index"]): one["relevance_score"] for one in results}
        self._check_near("rank", scores, 0.05)

    async def compaction(self) -> None:
        """A conversation's compaction, after which it goes on."""
        first = await self._response(self._word())
        compacted = await self._post(
            "/responses/compact", {"model": LOCAL, "previous_response_id": first["id"]}
        )
        await self._response([*compacted["output"], {"role": "user", "content": self._word()}])

    async def _response(self, asked: object) -> JsonObject:
        body = {"model": LOCAL, "input": asked, "max_output_tokens": 16}
        response = await self._post("/responses", body)
        self._facts.responses[response["id"]] = texts_of(response)
        return response

    async def mcp_chat(self) -> None:
        """A chat by the tool of that name."""
        arguments = {"model": LOCAL, "message": self._word()}
        params = {"name": "chat", "arguments": arguments}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        accepted = {"accept": "application/json, text/event-stream"}
        answer = await self._client.post(f"{self._address}/mcp", json=call, headers=accepted)
        self._require_answer(answer)
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if "{" in line]
        if not lines:
            raise Refused("cut off")
        told = json.loads(lines[-1])
        if "error" in told or told["result"].get("isError"):
            raise Refused("error")
        self._check("number of the call", told["id"], 1)

    async def socket_response(self) -> None:
        """Responses over a WebSocket, one after the other."""
        url = f"{self._address.replace('http', 'ws')}/v1/responses"
        key = self._client.headers["authorization"]
        try:
            opened = connect(url, additional_headers={"authorization": key}, open_timeout=None)
            async with asyncio.timeout(_SOCKET_S), opened as socket:
                for _ in range(self._draw.randint(1, 3)):
                    body = {"model": LOCAL, "input": self._word(), "max_output_tokens": 16}
                    await socket.send(json.dumps({"type": "response.create", **body}))
                    events = [json.loads(await socket.recv())]
                    while events[-1]["type"] not in _ENDS:
                        events.append(json.loads(await socket.recv()))
                    self._take_end(events)
        except InvalidStatus as refused:
            status = refused.response.status_code
            self._check("refusal of a socket", status in _MAY_REFUSE and status, status)
            raise Refused(str(status)) from refused
        except TimeoutError:
            self.wrong[f"a socket that did not end in {_SOCKET_S} s"] += 1
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError) as error:
            raise Refused(type(error).__name__) from error

    def _take_end(self, events: Sequence[JsonObject]) -> None:
        if events[-1]["type"] in ("error", "response.failed"):
            raise Refused(events[-1]["type"])
        response = events[-1]["response"]
        self._facts.responses[response["id"]] = texts_of(response)

    def _check_near(self, what: str, found: dict[str, float], rounding: float) -> None:
        """Notes numbers that are others than the first time: cells have half precision, and cached
        ones were computed in other batches, which an uncertain model's scores show most."""
        first = self._facts.decisions.setdefault(what, dict(found))
        is_far = [one for one in first if abs(found.get(one, 9) - first[one]) > rounding]
        self._check(f"{what} {found} beside {first}", is_far, [])
