"""Servers that the tested one calls: an upstream of chats that says each chat's last words again,
an image server whose colours tell the prompts, and a receiver of webhooks."""

import hashlib
import itertools
import json
from collections.abc import AsyncIterator

import openai
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.image_server import decoded, painted

__all__ = ["Far", "colour_of", "colour_of_image"]


class Far:
    """All of it as one ASGI app. `events` are the webhook events by their ids, each as it came
    first; `secret` is that of their signatures, and `wrong` what no event may be."""

    def __init__(self) -> None:
        self.secret = ""
        self.events: dict[str, bytes] = {}
        self.deliveries = 0
        self.wrong: list[str] = []
        self._numbers = itertools.count()
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/sdapi/v1/sd-models", self._painters),
                Route("/sdapi/v1/txt2img", self._paint, methods=["POST"]),
                Route("/sdapi/v1/progress", self._progress),
                Route("/sdapi/v1/interrupt", self._interrupt, methods=["POST"]),
                Route("/events", self._receive, methods=["POST"]),
            ]
        )

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        said = _text(body["messages"][-1]["content"])
        head = {"id": f"far-{next(self._numbers)}", "created": 1, "model": body["model"]}
        if body.get("stream"):
            return StreamingResponse(_events(head, said), media_type="text/event-stream")
        message = {"role": "assistant", "content": said, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
        return JSONResponse(answer)

    async def _models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": []})

    async def _painters(self, _request: Request) -> Response:
        return JSONResponse([{"title": "sd-one.safetensors", "model_name": "sd-one"}])

    async def _paint(self, request: Request) -> Response:
        fields = await request.json()
        size = fields["width"], fields["height"]
        image = painted("#" + colour_of(fields["prompt"]).hex(), size)
        return JSONResponse({"images": [image], "info": "{}"})

    async def _progress(self, _request: Request) -> Response:
        return JSONResponse({"progress": 0.5, "current_image": None})

    async def _interrupt(self, _request: Request) -> Response:
        return JSONResponse({})

    async def _receive(self, request: Request) -> Response:
        """Takes a webhook event; of four new ones the first try of one fails."""
        body, id = await request.body(), request.headers["webhook-id"]
        webhooks = openai.OpenAI(api_key="none").webhooks
        self.deliveries += 1
        try:
            webhooks.verify_signature(body, dict(request.headers), secret=self.secret)
        except openai.InvalidWebhookSignatureError as error:
            self.wrong.append(f"signature of {id}: {error}")
        is_new = id not in self.events
        if self.events.setdefault(id, body) != body:
            self.wrong.append(f"{id} came with two bodies")
        fails = is_new and len(self.events) % 4 == 0
        return Response(status_code=503 if fails else 204)


def colour_of(prompt: str) -> bytes:
    """Three bytes, for each prompt others."""
    return hashlib.sha256(prompt.encode()).digest()[:3]


def colour_of_image(image: bytes) -> bytes:
    """The colour of an image's first point."""
    return bytes(decoded(image).convert("RGB").getpixel((0, 0)))


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    assert isinstance(content, list), "text or parts"
    return "".join(part["text"] for part in content)


async def _events(head: dict[str, object], said: str) -> AsyncIterator[bytes]:
    for letter in said:
        yield _event(head, {"content": letter}, None)
    yield _event(head, {}, "stop")
    yield b"data: [DONE]\n\n"


def _event(head: dict[str, object], delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()
