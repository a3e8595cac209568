"""The machine's memory is divided among the served models."""

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.served_models import ServedModel
from llm_backend.backends.base import ModelCard
from llm_backend.engine import EngineConfig
from llm_backend.engine.messages import ModelKind
from llm_backend.model_files import Device, PlanRequest
from tests.model_shapes import EIGHT_BILLION, HALF_BILLION, write_shape

GB = 10**9


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {"small": HALF_BILLION, "large": EIGHT_BILLION}
    return {name: write_shape(folder / f"{name}.gguf", shape) for name, shape in shapes.items()}


def served(name: str, path: Path, **fields: object) -> ServedModel:
    return ServedModel(
        card=ModelCard(id=name, created_at=1, owned_by="test"),
        aliases=(),
        tool_format=None,
        chat_format=None,
        personalities={},
        personality=None,
        vector_stores=(),
        defaults={},
        engine=EngineConfig(model_path=path),
        loads_at_start=True,
        idle_unload_s=None,
        memory_bytes=None,
        plan_request=PlanRequest(**fields),
    )


def device(free: int, name: str = "GPU0") -> Device:
    return Device(name=name, description="", total_bytes=24 * GB, free_bytes=free)


def test_models_that_fit_together_are_planned_to_fit_together(files):
    models = [served("a", files["small"]), served("b", files["small"])]
    planner = ModelPlanner(6 * GB)

    alone = planner.plan(models[0], models[:1])
    beside = [planner.plan(one, models) for one in models]

    assert sum(one.bytes for one in beside) <= 6 * GB
    assert beside[0].bytes < alone.bytes
    assert all(one.engine.context_tokens == 32768 for one in (alone, *beside))
    assert beside[0].engine.slots < alone.engine.slots


def test_planned_engine_has_a_smaller_plan_and_describes_its_own(files):
    planned = ModelPlanner(8 * GB).plan(served("a", files["small"]), [])

    engine = planned.engine
    assert f"{engine.slots} x {engine.context_tokens:,} tokens" in engine.plan
    assert engine.smaller_fit is not None
    assert engine.smaller_fit.slots < engine.slots


def test_model_that_embeds_by_its_settings_keeps_a_short_context(files):
    model = served("a", files["small"])
    embedding = replace(model, engine=structs.replace(model.engine, kind=ModelKind.EMBEDDING))

    planned = ModelPlanner(None).plan(embedding, [])

    assert planned.engine.context_tokens is None
    assert planned.engine.smaller_fit is None


def test_plan_uses_what_other_models_and_programs_leave_of_a_gpu(files):
    free = [20 * GB]
    planner = ModelPlanner(None, lambda: [device(free[0])])
    first, second = served("a", files["large"]), served("b", files["large"])

    own = planner.plan(first, [first])
    free[0] = 20 * GB  # the first one is loading, so its memory looks free
    beside = planner.plan(second, [first, second], loaded={"a"})

    assert own.engine.gpu_layers == 33
    assert own.engine.tensor_split == (33.0,)
    assert beside.engine.gpu_layers < 33
    assert sum(own.device_bytes) + sum(beside.device_bytes) <= 20 * GB
    free[0] = 2 * GB  # another program has taken the rest
    assert planner.plan(first, [first]).engine.gpu_layers < 33


def test_budget_includes_gpus_with_memory_of_their_own():
    gpu = device(20 * GB)
    shared = Device(name="M", description="", total_bytes=8, free_bytes=8, shares_host=True)

    plain, with_gpu, unified = (
        ModelPlanner(None, lambda found=found: found).budget_bytes
        for found in ((), (gpu,), (shared,))
    )

    assert with_gpu - plain == 24 * GB
    assert unified == plain
    assert ModelPlanner(5 * GB, lambda: (gpu,)).budget_bytes == 5 * GB
