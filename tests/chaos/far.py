"""The upstream of relayed chats: says each chat's last words again, and never fails."""

import itertools
import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

__all__ = ["far"]

_numbers = itertools.count()


async def _chat(request: Request) -> Response:
    body = await request.json()
    said = str(body["messages"][-1]["content"])
    head = {"id": f"far-{next(_numbers)}", "created": 1, "model": body["model"]}
    if body.get("stream"):
        return StreamingResponse(_events(head, said), media_type="text/event-stream")
    message = {"role": "assistant", "content": said, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})


async def _events(head: dict[str, object], said: str) -> AsyncIterator[bytes]:
    for letter in said:
        yield _event(head, {"content": letter}, None)
    yield _event(head, {}, "stop")
    yield b"data: [DONE]\n\n"


def _event(head: dict[str, object], delta: dict[str, str], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def _models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": []})


far = Starlette(
    routes=[
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/models", _models),
    ]
)
