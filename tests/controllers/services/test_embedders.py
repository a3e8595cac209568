"""Embedding models of vector stores, as the configuration changes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.backends.base import ModelCard
from llm_backend.controllers.services.embedders import SPARE_TOKENS, Embedders
from llm_backend.engine.messages import ModelKind
from llm_backend.errors import ContextLengthExceeded
from tests.handles import idle_handle


class EmbeddingModel:
    """A model whose engine is configured with `context_tokens`."""

    def __init__(self, context_tokens: int) -> None:
        self.card = ModelCard(id="m", created_at=0, owned_by="me")
        self.handle = idle_handle("m", Path("m.gguf"))
        self.batch_tokens = 1_000_000
        self._context_tokens = context_tokens
        self.loads = 0

    async def info(self) -> Any:
        self.loads += 1
        return SimpleNamespace(kind=ModelKind.EMBEDDING, context_tokens=self._context_tokens)


async def test_an_embedder_has_the_input_limit_of_the_reloaded_configuration() -> None:
    before, after = EmbeddingModel(512), EmbeddingModel(256)
    registry: Any = SimpleNamespace(local=[before])
    embedders = Embedders(registry, preferred=None)
    limits = [(await embedders.get("m")).input_limit for _ in range(2)]

    registry.local = [after]
    limits.append((await embedders.get("m")).input_limit)

    assert limits == [512 - SPARE_TOKENS, 512 - SPARE_TOKENS, 256 - SPARE_TOKENS]
    assert (before.loads, after.loads) == (1, 1)


async def test_an_embedder_with_too_short_a_context_is_refused_with_both_numbers() -> None:
    registry: Any = SimpleNamespace(local=[EmbeddingModel(SPARE_TOKENS)])

    with pytest.raises(ContextLengthExceeded) as refused:
        await Embedders(registry, preferred=None).get("m")

    assert f"reads {SPARE_TOKENS} tokens" in refused.value.message
    assert f"needs {SPARE_TOKENS + 1}" in refused.value.message
