"""A stand-in for a Qdrant server: the requests that are used, over the client's in-memory mode."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from qdrant_client import QdrantClient, models
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["QdrantStandIn", "qdrant_server"]


class QdrantStandIn:
    """Its collections; one request is answered at a time."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.fails_with: int | None = None
        self.fails_at: str | None = None
        self.indexed: set[str] = set()
        self.keys: list[str | None] = []

    def app(self) -> Starlette:
        name = "/collections/{name}"
        return Starlette(
            routes=[
                Route("/collections", self._answer(self._list), methods=["GET"]),
                Route(f"{name}/exists", self._answer(self._exists), methods=["GET"]),
                Route(name, self._answer(self._create), methods=["PUT"]),
                Route(name, self._answer(self._drop), methods=["DELETE"]),
                Route(f"{name}/index", self._answer(self._index), methods=["PUT"]),
                Route(f"{name}/points", self._answer(self._put), methods=["PUT"]),
                Route(f"{name}/points/delete", self._answer(self._delete), methods=["POST"]),
                Route(f"{name}/points/payload", self._answer(self._describe), methods=["POST"]),
                Route(f"{name}/points/query", self._answer(self._query), methods=["POST"]),
            ]
        )

    def _answer(self, work: Any) -> Any:
        async def answered(request: Request) -> Response:
            self.keys.append(request.headers.get("api-key"))
            if self.fails_with is not None:
                return JSONResponse({"status": {"error": "told to"}}, self.fails_with)
            if self.fails_at is not None and request.url.path.endswith(self.fails_at):
                return JSONResponse({"status": {"error": "told to"}}, 500)
            body = await request.json() if await request.body() else {}
            name = request.path_params.get("name")
            if name and not self._has(name) and work not in (self._create, self._exists):
                missing = {"error": f"Not found: Collection `{name}` doesn't exist!"}
                return JSONResponse({"status": missing, "time": 0.0}, 404)
            result = work(name, body)
            return JSONResponse({"result": result, "status": "ok", "time": 0.0})

        return answered

    def _has(self, name: str) -> bool:
        return self.client.collection_exists(name)

    def _list(self, _name: str, _body: Any) -> Any:
        names = [{"name": one.name} for one in self.client.get_collections().collections]
        return {"collections": names}

    def _exists(self, name: str, _body: Any) -> Any:
        return {"exists": self._has(name)}

    def _create(self, name: str, body: Any) -> Any:
        parsed = models.CreateCollection(**body)
        return self.client.create_collection(
            name, vectors_config=parsed.vectors, sparse_vectors_config=parsed.sparse_vectors
        )

    def _drop(self, name: str, _body: Any) -> Any:
        return self.client.delete_collection(name)

    def _done(self, _name: str, _body: Any) -> Any:
        return {"operation_id": 0, "status": "completed"}

    def _index(self, name: str, body: Any) -> Any:
        self.indexed.add(name)
        return self._done(name, body)

    def _put(self, name: str, body: Any) -> Any:
        self.client.upsert(name, models.PointsList(**body).points)
        return self._done(name, body)

    def _delete(self, name: str, body: Any) -> Any:
        self.client.delete(name, models.FilterSelector(**body))
        return self._done(name, body)

    def _describe(self, name: str, body: Any) -> Any:
        parsed = models.SetPayload(**body)
        self.client.set_payload(name, parsed.payload, points=parsed.filter)
        return self._done(name, body)

    def _query(self, name: str, body: Any) -> Any:
        parsed = models.QueryRequest(**body)
        answer = self.client.query_points(
            name,
            query=parsed.query,
            using=parsed.using,
            limit=parsed.limit,
            query_filter=parsed.filter,
            with_payload=False,
        )
        return {"points": [one.model_dump(mode="json") for one in answer.points]}


@contextlib.contextmanager
def qdrant_server() -> Iterator[tuple[str, QdrantStandIn]]:
    """Its URL while it runs."""
    stand_in = QdrantStandIn()
    config = uvicorn.Config(stand_in.app(), port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", stand_in
    finally:
        server.should_exit = True
        thread.join()
