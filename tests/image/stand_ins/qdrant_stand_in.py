"""The stand-in of the tests for Qdrant, with the variables of its image; it asks for its key."""

import os

import uvicorn
from qdrant import QdrantStandIn
from starlette.types import ASGIApp, Receive, Scope, Send


def with_key(app: ASGIApp, key: bytes) -> ASGIApp:
    """The application, which answers 401 to a request without the key."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if (b"api-key", key) in scope["headers"]:
            await app(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body"})

    return answer


key = os.environ["QDRANT__SERVICE__API_KEY"].encode()
port = int(os.environ["QDRANT__SERVICE__HTTP_PORT"])
uvicorn.run(with_key(QdrantStandIn().app(), key), host="127.0.0.1", port=port, lifespan="off")
