"""Sends an error response from middleware outside of the contract, for HTTP and websockets."""

from secrets import token_hex

import orjson
from starlette.types import Scope, Send

from llm_backend.error_bodies import error_body_for
from llm_backend.errors import ApiError


async def send_error_response(scope: Scope, send: Send, error: ApiError) -> None:
    """Sends the error's status, its body and a request id, which is stored in the scope."""
    request_id = scope.setdefault("state", {}).setdefault("request_id", f"req_{token_hex(16)}")
    kind = "http"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close"})  # before the handshake ends: a 403
            return
        kind = "websocket.http"
    body = orjson.dumps(error_body_for(scope["path"], error))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": f"{kind}.response.start", "status": error.status, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})
