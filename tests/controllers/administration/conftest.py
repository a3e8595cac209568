"""The application without models in this process, and official clients that speak to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio
from sqlalchemy import Connection, delete, update
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llm_backend.access import DEFAULT_PROJECT
from llm_backend.app import App
from llm_backend.settings import Settings
from llm_backend.store import Database
from llm_backend.store.database.metadata import counters
from llm_backend.store.tables.administration import (
    administered,
    api_keys,
    audit_logs,
)
from tests.patience import settle
from tests.strict_sdk import StrictAsyncOpenAI
from tests.upstream import serving

ROOT_KEY = "sk-root"

Client = Callable[..., openai.AsyncOpenAI]


def settings_for(folder: Path, **more: object) -> Settings:
    given = {
        "models": (),
        "voice_program": "none",
        "data_dir": folder,
        "api_keys": (ROOT_KEY,),
        "response_validation": "enforce",
        "log_level": "warning",
    }
    return Settings(**{**given, **more})


@asynccontextmanager
async def served(folder: Path, **more: object) -> AsyncIterator[Client]:
    """Makes clients of one server: `client(key)`; the key of the settings is the default."""
    async with AsyncExitStack() as stack:
        app = App(settings_for(folder, **more))
        await stack.enter_async_context(app.open())

        def client(key: str = ROOT_KEY) -> openai.AsyncOpenAI:
            transport = httpx.ASGITransport(app)
            stack.push_async_callback(transport.aclose)
            return StrictAsyncOpenAI(
                base_url="http://server/v1",
                api_key=key,
                admin_api_key=key,
                max_retries=0,
                http_client=httpx.AsyncClient(transport=transport),
            )

        yield client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a module's server: to open one takes a while."""
    return tmp_path_factory.mktemp("data")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_client(folder: Path) -> AsyncIterator[Client]:
    async with served(folder, keys_refresh_s=0.01) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def client(module_client: Client, folder: Path) -> Client:
    """Clients of a server without models, which knows nothing but its default project."""
    async with Database.open(f"sqlite:///{folder / 'llm-backend.sqlite3'}") as database:
        await database.write(_forget)
    await settle()  # longer than the server takes to notice
    return module_client


def _forget(connection: Connection) -> None:
    connection.execute(delete(administered).where(administered.c.id != DEFAULT_PROJECT))
    connection.execute(delete(audit_logs).where(audit_logs.c.resource_id != DEFAULT_PROJECT))
    connection.execute(delete(audit_logs).where(audit_logs.c.type != "project.created"))
    connection.execute(delete(api_keys))
    connection.execute(update(counters).values(value=counters.c.value + 1))


COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-x",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": '"usage":{"x":1}', "refusal": None},
        }
    ],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 400, "image_tokens": 500, "audio_tokens": 200},
        "completion_tokens_details": {"audio_tokens": 50},
    },
}
EMBEDDING = {
    "object": "list",
    "model": "embed-x",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "usage": {"prompt_tokens": 7, "total_tokens": 7},
}


MODEL = {"id": "gpt-x", "object": "model", "created": 1, "owned_by": "upstream"}


async def answering(request: Request) -> JSONResponse:
    """An upstream that answers chats, embeddings and edits of images, and keeps nothing."""
    await request.body()
    if request.url.path.endswith("/embeddings"):
        return JSONResponse(EMBEDDING)
    if request.url.path.endswith("/models"):
        return JSONResponse({"object": "list", "data": [MODEL]})
    if request.url.path.endswith("/chat/completions"):
        return JSONResponse(COMPLETION)
    if request.url.path.endswith("/images/edits"):
        return JSONResponse({"created": 1, "data": [{"url": "http://upstream/1"}]})
    error = {"message": "Nothing here.", "type": "invalid_request_error", "param": None}
    return JSONResponse({"error": {**error, "code": "not_found"}}, status_code=404)


@asynccontextmanager
async def relaying_client(folder: Path, **more: object) -> AsyncIterator[Client]:
    """Clients of a server without models, in front of such an upstream."""
    upstream = Starlette(routes=[Route("/{path:path}", answering, methods=["GET", "POST"])])
    async with (
        serving(upstream) as port,
        served(
            folder,
            openai_api_key="sk-up",
            openai_base_url=f"http://127.0.0.1:{port}/v1",
            **more,
        ) as client,
    ):
        yield client
