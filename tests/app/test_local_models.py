"""Local models follow the settings; unchanged models stay loaded."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.app.local_models import LocalModels, memory_bytes
from llm_backend.app.served_models import ServedModel
from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.model_handle import LoadQueueLimits, ModelState
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.backends.registry import Registry
from llm_backend.engine import EngineConfig
from llm_backend.engine.messages import ModelKind
from llm_backend.errors import InvalidRequest, ModelNotFound
from tests.backends.local.test_model_manager import FakeEngine
from tests.engine.gguf_models import write_bert, write_llama


def wanted(name: str, *, memory: int | None = 3, **engine: object) -> ServedModel:
    return ServedModel(
        card=ModelCard(id=name, created_at=1, owned_by="test"),
        aliases=(f"{name}-alias",),
        tool_format=None,
        chat_format=None,
        personalities={"calm": "Be calm."},
        personality=None,
        vector_stores=(),
        defaults={},
        engine=EngineConfig(model_path=Path(f"{name}.gguf"), **engine),
        loads_at_start=True,
        idle_unload_s=None,
        memory_bytes=memory,
    )


class House:
    def __init__(self) -> None:
        self.registry = Registry([])
        self.manager = LocalModelManager(10)
        self.made: list[str] = []
        self.models = LocalModels(
            self.registry, self.manager, self._engine, lambda *_: None, LoadQueueLimits()
        )

    def _engine(self, config: EngineConfig) -> FakeEngine:
        self.made.append(config.model_path.stem)
        return FakeEngine()

    def states(self) -> dict[str, ModelState]:
        return {model.card.id: model.state for model in self.registry.local}


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    one = House()
    async with one.manager:
        yield one


async def test_local_models_keep_unchanged_models_loaded(house):
    await house.models.serve([wanted("a"), wanted("b")])
    first = house.registry.for_model("a:calm")
    await house.models.serve([wanted("a"), wanted("c")])
    await asyncio.sleep(0.01)

    assert house.made == ["a", "b", "c"]
    assert house.states() == {"a": ModelState.LOADED, "c": ModelState.LOADED}
    assert first is not None
    assert first.handle is house.registry.for_model("a-alias").handle
    with pytest.raises(ModelNotFound):
        house.registry.for_model("b")
    assert house.manager.memory_bytes == 6


async def test_local_models_reload_only_models_with_a_changed_engine(
    house,
):
    await house.models.serve([wanted("a")])
    await house.models.serve([replace(wanted("a"), aliases=("other",))])
    assert house.made == ["a"]
    assert house.registry.for_model("other").state is ModelState.LOADED

    await house.models.serve([wanted("a", slots=3)])
    assert house.made == ["a", "a"]


async def test_local_models_load_the_others_if_one_never_fits(house):
    with pytest.raises(InvalidRequest, match="`huge` would take"):
        await house.models.serve([wanted("huge", memory=11), wanted("a")])

    assert house.states() == {"huge": ModelState.UNLOADED, "a": ModelState.LOADED}


def test_memory_of_a_missing_file_is_zero(caplog):
    assert memory_bytes(wanted("a", memory=None)) == 0
    assert "model_size_unknown" in caplog.text


async def test_local_model_role_is_known_without_loading(house, tmp_path):
    bert, llama = write_bert(tmp_path / "bert.gguf"), write_llama(tmp_path / "llama.gguf")
    files = {"bert": bert, "llama": llama, "none": tmp_path / "none.gguf"}
    models = [
        replace(wanted(name), engine=EngineConfig(model_path=path), loads_at_start=False)
        for name, path in files.items()
    ]
    told = replace(models[1], card=replace(models[1].card, id="told"), aliases=())
    told = replace(told, engine=EngineConfig(model_path=llama, kind=ModelKind.EMBEDDING))
    await house.models.serve([*models, told])

    may_embed = {model.card.id: await model.may_embed() for model in house.registry.local}
    assert may_embed == {"bert": True, "llama": False, "none": False, "told": True}
    assert house.made == []
