"""The live tests share one served process with the built-in model."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import pytest_asyncio
from playwright.sync_api import Browser, Page, expect

from tests.browser import chromium, tab
from tests.patience import wait_until
from tests.serving import ENDLESS, EXACT, Served, serve
from tests.strict_sdk import StrictAsyncOpenAI, StrictOpenAI


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, settings = (
        tmp_path_factory.mktemp("server"),
        {"LLM_BACKEND_MODERATION_MODEL": "builtin"},
    )
    with serve(folder, "--alias", "gpt-3.5-turbo", environment=settings) as served:
        yield served


@pytest.fixture(scope="session")
def exact_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose probabilities do not depend on what else a pass computes."""
    settings = {"LLM_BACKEND_MODERATION_MODEL": "builtin", **EXACT}
    with serve(tmp_path_factory.mktemp("exact"), environment=settings) as served:
        yield served


@pytest.fixture(scope="session")
def endless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose answers to requests with `WITHOUT_END` go on until they are stopped."""
    with serve(tmp_path_factory.mktemp("endless"), environment=ENDLESS) as served:
        yield served


@pytest.fixture(scope="session")
def library_server(tmp_path_factory: pytest.TempPathFactory, minilm_file: Path) -> Iterator[Served]:
    """A server with a model that chats and one for embeddings; it searches before it answers."""
    flags = ("--model", "builtin", "--model", str(minilm_file))
    environment = {"LLM_BACKEND_FILE_SEARCH": "always", "LLM_BACKEND_QUERY_MODEL": "builtin"}
    folder = tmp_path_factory.mktemp("library")
    with serve(folder, *flags, environment=environment) as served:
        # until the one for embeddings is loaded, the page sends files with messages
        wait_until(lambda: all(one["state"] == "ready" for one in models_of(served)))
        yield served


def models_of(served: Served) -> list[dict[str, str]]:
    """The models of a server, each with its state."""
    models: list[dict[str, str]] = httpx.get(f"{served.base_url}/info").json()["models"]
    return models


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture
def exact_client(exact_server: Served) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=exact_server.base_url, api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture
def endless_client(endless_server: Served) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=endless_server.base_url, api_key="none", max_retries=0) as one:
        yield one


@pytest_asyncio.fixture
async def async_client(server: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with StrictAsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Served) -> Iterator[Page]:
    with chat_page(browser, server) as one:
        yield one


@pytest.fixture
def endless_page(browser: Browser, endless_server: Served) -> Iterator[Page]:
    with chat_page(browser, endless_server) as one:
        yield one


@contextmanager
def chat_page(browser: Browser, server: Served) -> Iterator[Page]:
    """A tab with the chat page, which knows the models, and no chats of tests before."""
    delete_chats(server)
    with tab(browser, server.address) as one:
        one.goto("/")
        expect(one.locator("#model")).to_have_value("builtin")
        yield one


def delete_chats(server: Served) -> None:
    """Deletes the stored chats of a server that wants no key."""
    with StrictOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        for chat in list(client.chat.completions.list(limit=100)):
            client.chat.completions.delete(chat.id)
