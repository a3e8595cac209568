"""The application without models in this process, and official clients that speak to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import openai
import pytest

from llm_backend.app import App
from llm_backend.settings import Settings

ROOT_KEY = "sk-root"

Client = Callable[..., openai.AsyncOpenAI]


def settings_for(folder: Path, **more: object) -> Settings:
    given = {
        "models": (),
        "data_dir": folder,
        "api_keys": (ROOT_KEY,),
        "response_validation": "enforce",
        "log_level": "warning",
    }
    return Settings(**{**given, **more})


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """Makes clients of one server: `client(key)`; the key of the settings is the default."""
    async with AsyncExitStack() as stack:
        app = App(settings_for(tmp_path))
        await stack.enter_async_context(app.opened())

        def client(key: str = ROOT_KEY) -> openai.AsyncOpenAI:
            transport = httpx.ASGITransport(app)
            stack.push_async_callback(transport.aclose)
            return openai.AsyncOpenAI(
                base_url="http://server/v1",
                api_key=key,
                admin_api_key=key,
                max_retries=0,
                http_client=httpx.AsyncClient(transport=transport),
            )

        yield client
