"""The plan of a model is the same in the log, `check`, `/status` and `models show`."""

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from msgspec.structs import replace
from typer.testing import CliRunner

from llm_backend.app.model_planning import ModelPlanner
from llm_backend.app.served_models import build_served_models
from llm_backend.cli import app
from llm_backend.cli.check import findings
from llm_backend.controllers.services.status_board import StatusBoard
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.model_files import Device, model_costs, read_header
from llm_backend.settings import load_settings
from tests.engine.gguf_models import write_llama

GB = 10**9
GPU = Device(name="GPU0", description="a chip", total_bytes=24 * GB, free_bytes=20 * GB)
SMALL_GPU = Device(name="GPU0", description="a chip", total_bytes=2 * GB, free_bytes=1_085_000_000)


@pytest.fixture(params=[(), (GPU,), (GPU, GPU), (SMALL_GPU,)], ids=["none", "one", "two", "full"])
def devices(request, monkeypatch) -> tuple[Device, ...]:
    """A machine with these GPUs, whose memory does not change meanwhile."""
    found = "llm_backend.engine.process.device_list.find_devices"
    monkeypatch.setattr(found, lambda: request.param)
    monkeypatch.setattr(
        "llm_backend.app.model_planning.available_memory_bytes", lambda: 4_000_000_000
    )
    return request.param


@pytest.fixture(params=[{}, {"slots": 3, "draft_tokens": 64}], ids=["plain", "with settings"])
def config(request, tmp_path, monkeypatch) -> Path:
    return config_file(tmp_path, monkeypatch, **request.param)


def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **entry: object) -> Path:
    """A configuration with one model."""
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LLM_BACKEND_MODELS_DIR", str(tmp_path))
    write_llama(tmp_path / "tiny.gguf")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"models": [{"path": "tiny.gguf", **entry}]}))
    return file


def plan(config: Path, devices: tuple[Device, ...]) -> EngineConfig:
    """The configuration of the model's engine, as a server plans it."""
    settings = load_settings({}, config)
    served = build_served_models(settings)
    planner = ModelPlanner(settings.memory_budget, lambda: devices)
    return planner.plan(served[0], served).engine


async def status_of(engine: EngineClient) -> Any:
    """The model's part of `/status`."""

    async def has_room() -> bool:
        return True

    model: Any = SimpleNamespace(
        card=SimpleNamespace(id="tiny"), engine=engine, engine_state=str(engine.state)
    )
    board = StatusBoard(lambda: [model], asyncio.Event(), has_upstream=False, has_room=has_room)
    return (await board.current())["models"][0]


def logged_plans(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["plan"] for record in caplog.records if record.message == "engine_ready"]


async def test_plan_is_the_same_in_every_output(config, devices, caplog):
    caplog.set_level("INFO")
    engine_config = plan(config, devices)
    async with EngineClient(engine_config) as engine:
        await engine.ready()
        status = await status_of(engine)
    shown = CliRunner().invoke(app, ["models", "show", "tiny.gguf", "--config", str(config)]).stdout
    checked = await asyncio.to_thread(
        lambda: next(one for one in findings(config) if one.name == "models")
    )

    assert engine_config.plan.endswith("of host memory.")
    assert ("GPU0" in engine_config.plan) == bool(devices)
    assert logged_plans(caplog)[0] == engine_config.plan
    assert status["plan"] == engine_config.plan
    assert engine_config.plan in checked.sentence
    assert f"On this machine, alone: {engine_config.plan}" in " ".join(shown.split())


async def test_plan_that_shrank_is_reported_as_it_is_now(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    planned = plan(config_file(tmp_path, monkeypatch), (SMALL_GPU,))
    assert planned.smaller_fit is not None
    command = (sys.executable, "-m", "tests.engine.crashing_worker", "little-memory")
    large = replace(planned, slots=8, context_tokens=1 << 20, command=command)
    async with EngineClient(large) as engine:
        await engine.ready()
        status = await status_of(engine)

    assert planned.smaller_fit.plan != planned.plan
    assert (status["plan"], status["slots"], status["context_tokens"]) == (
        planned.smaller_fit.plan,
        planned.smaller_fit.slots,
        planned.smaller_fit.context_tokens,
    )
    assert logged_plans(caplog) == [planned.smaller_fit.plan]


@pytest.mark.parametrize("factor", [1, 4])
def test_check_and_plan_name_a_context_beyond_the_trained_one(tmp_path, monkeypatch, factor):
    file = config_file(tmp_path, monkeypatch)
    trained = model_costs(read_header(tmp_path / "tiny.gguf")).trained_tokens
    entry = {"path": "tiny.gguf", "context_tokens": factor * trained}
    file.write_text(yaml.safe_dump({"models": [entry]}))
    settings = load_settings({}, file)
    served = build_served_models(settings)
    planned = ModelPlanner(settings.memory_budget).plan(served[0], served)
    (finding,) = (one for one in findings(file, {}) if one.name == "models")

    words = f" (more than the {trained:,} that it was trained for)"
    assert (words in finding.sentence) == (factor > 1), finding.sentence
    assert planned.exceeded_tokens == (trained if factor > 1 else None)
