"""LoRA adapters change what an engine says, as strongly as they are applied."""

from pathlib import Path

import pytest

from llm_backend.engine import EngineClient, EngineStartError
from llm_backend.engine.messages import Adapter, Generate, Sampling
from tests.engine.conftest import answer, config
from tests.engine.gguf_models import write_adapter


async def answer_text(model: Path, *adapters: Adapter) -> str:
    asked = Generate(
        id="a", prompt="the cat", max_tokens=12, ignore_eos=True, sampling=Sampling(temperature=0)
    )
    async with EngineClient(config(model, adapters=adapters, slots=1)) as engine:
        await engine.ready()
        return "".join(delta.text for delta in await answer(engine, asked))


async def test_adapter_changes_the_logits_by_its_scale(tiny_llama, tmp_path):
    path = str(write_adapter(tmp_path / "adapter.gguf"))
    plain = await answer_text(tiny_llama)

    assert await answer_text(tiny_llama, Adapter(path=path, scale=0.0)) == plain
    assert await answer_text(tiny_llama, Adapter(path=path)) != plain


@pytest.mark.parametrize(
    ("adapter", "reason"),
    [({"architecture": "qwen3"}, "cannot be applied"), ({"size": 32}, "cannot be applied")],
)
async def test_adapter_for_another_model_is_refused(tiny_llama, tmp_path, adapter, reason):
    path = str(write_adapter(tmp_path / "adapter.gguf", **adapter))
    async with EngineClient(config(tiny_llama, adapters=(Adapter(path=path),))) as engine:
        with pytest.raises(EngineStartError, match=reason):
            await engine.ready()
