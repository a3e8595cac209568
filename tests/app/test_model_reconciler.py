"""Local models follow the settings; unchanged models stay loaded."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.model_reconciler import ModelReconciler
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
from tests.patience import settle


def served_model(name: str, *, memory: int | None = 3, **engine: object) -> ServedModel:
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


class Setup:
    def __init__(self) -> None:
        self.registry = Registry([])
        self.manager = LocalModelManager(10)
        self.made: list[str] = []
        self.models = ModelReconciler(
            self.registry,
            self.manager,
            self._engine,
            lambda *_: None,
            LoadQueueLimits(),
            ModelPlanner(10),
        )

    def _engine(self, config: EngineConfig) -> FakeEngine:
        self.made.append(config.model_path.stem)
        return FakeEngine()

    def states(self) -> dict[str, ModelState]:
        return {model.card.id: model.state for model in self.registry.local}


@pytest_asyncio.fixture
async def setup() -> AsyncIterator[Setup]:
    one = Setup()
    async with one.manager:
        yield one


async def test_local_models_keep_unchanged_models_loaded(setup):
    await setup.models.serve([served_model("a"), served_model("b")])
    first = setup.registry.for_model("a:calm")
    await setup.models.serve([served_model("a"), served_model("c")])
    await settle()

    assert setup.made == ["a", "b", "c"]
    assert setup.states() == {"a": ModelState.LOADED, "c": ModelState.LOADED}
    assert first is not None
    assert first.handle is setup.registry.for_model("a-alias").handle
    with pytest.raises(ModelNotFound):
        setup.registry.for_model("b")
    assert setup.manager.memory_bytes == 6


async def test_local_models_reload_only_models_with_a_changed_engine(
    setup,
):
    await setup.models.serve([served_model("a")])
    await setup.models.serve([replace(served_model("a"), aliases=("other",))])
    assert setup.made == ["a"]
    assert setup.registry.for_model("other").state is ModelState.LOADED

    await setup.models.serve([served_model("a", slots=3)])
    assert setup.made == ["a", "a"]


async def test_local_models_load_the_others_if_one_never_fits(setup):
    with pytest.raises(InvalidRequest, match="`huge` would take"):
        await setup.models.serve([served_model("huge", memory=11), served_model("a")])

    assert setup.states() == {"huge": ModelState.UNLOADED, "a": ModelState.LOADED}


def test_memory_of_a_missing_file_is_zero(caplog):
    missing = served_model("a", memory=None)
    assert ModelPlanner(None).plan(missing, [missing]).bytes == 0
    assert "model_size_unknown" in caplog.text


async def test_local_model_role_is_known_without_loading(setup, tmp_path):
    bert, llama = write_bert(tmp_path / "bert.gguf"), write_llama(tmp_path / "llama.gguf")
    files = {"bert": bert, "llama": llama, "none": tmp_path / "none.gguf"}
    models = [
        replace(served_model(name), engine=EngineConfig(model_path=path), loads_at_start=False)
        for name, path in files.items()
    ]
    declared = replace(models[1], card=replace(models[1].card, id="told"), aliases=())
    declared = replace(declared, engine=EngineConfig(model_path=llama, kind=ModelKind.EMBEDDING))
    await setup.models.serve([*models, declared])

    may_embed = {model.card.id: await model.may_embed() for model in setup.registry.local}
    assert may_embed == {"bert": True, "llama": False, "none": False, "told": True}
    assert setup.made == []
