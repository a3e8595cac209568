import asyncio
import functools
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import Delta, Generate
from tests.engine.gguf_models import write_bert, write_llama


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory) -> Path:
    """A float32 llama of random weights, 512 tokens of context."""
    return write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def tiny_spm(tmp_path_factory) -> Path:
    """The same with SentencePiece's vocabulary."""
    return write_llama(tmp_path_factory.mktemp("models") / "spm.gguf", has_spm=True)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory) -> Path:
    """A float32 BERT of random weights."""
    return write_bert(tmp_path_factory.mktemp("models") / "bert.gguf")


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory) -> Path:
    """A float32 BERT of random weights that ranks; like most of its kind, it does not say so."""
    return write_bert(tmp_path_factory.mktemp("models") / "ranks.gguf", pooling=None, labels=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_llama):
    """A running engine with four slots, shared by the tests of a module."""
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        yield engine


@pytest.fixture
def say(engine):
    """Asks the shared engine and reads the whole answer."""
    return functools.partial(answer, engine)


def config(model: Path, **fields: object) -> EngineConfig:
    """Small, quick to restart, one thread; float32 throughout, so that what else is in a batch
    rounds no choice to another one."""
    exact = {"cache_type": "f32", "flash_attention": False}
    defaults = {"slots": 4, "batch_tokens": 128, "threads": 1, "restart_delay_s": 0.01, **exact}
    return EngineConfig(model_path=model, **{**defaults, **fields})


async def answer(engine: EngineClient, request: Generate) -> list[Delta]:
    """All deltas of an answer."""
    async with await engine.generate(request) as generation:
        return [delta async for delta in generation]


async def eventually(claim) -> None:
    """Waits until a claim holds."""
    async with asyncio.timeout(60):
        while not claim():  # noqa: ASYNC110  # what it waits for gives no event: processes that end
            await asyncio.sleep(0.01)
