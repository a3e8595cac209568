"""A diffusion model in a worker: by stable-diffusion.cpp and random weights where it is installed,
else by a stand-in of its C functions (see `tests/tiny_diffusion.py`)."""

import ctypes
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from llm_backend.engine import (
    CommandFailed,
    EngineClient,
    EngineConfig,
    EngineDown,
    EngineStartError,
)
from llm_backend.engine.diffusion import DiffusionModel
from llm_backend.engine.diffusion.library import DiffusionLibrary
from llm_backend.engine.messages import (
    Draw,
    DrawingStep,
    Failure,
    ImageDrawn,
    ModelKind,
    Pixels,
    SlotAssigned,
)
from llm_backend.engine.sequential_engine import Cancelled
from tests.patience import comes_true
from tests.tiny_diffusion import HAS_LIBRARY, use_library, write_tiny_diffusion

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIDE = 64
LONG = 400  # steps of a drawing that does not end by itself in a test


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return write_tiny_diffusion(tmp_path_factory.mktemp("diffusion") / "tiny.gguf")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(path) -> AsyncIterator[EngineClient]:
    with pytest.MonkeyPatch.context() as patch:
        use_library(patch)
        async with EngineClient(config(path)) as one:
            await one.ready()
            yield one


def config(path: Path, **fields: Any) -> EngineConfig:
    return EngineConfig(model_path=path, kind=ModelKind.IMAGES, threads=1, **fields)


def command(**fields: Any) -> Draw:
    base: dict[str, Any] = {"prompt": "a cat", "width": SIDE, "height": SIDE, "steps": 1}
    return Draw(**{**base, "seed": 1, "guidance": 1.0, **fields})


async def events(engine: EngineClient, **fields: Any) -> list[Any]:
    return [event async for event in engine.draw(command(**fields))]


async def drawn(engine: EngineClient, **fields: Any) -> bytes:
    *_, answer = await events(engine, **fields)
    assert isinstance(answer, ImageDrawn)
    assert (answer.image.width, answer.image.height) == (SIDE, SIDE)
    return answer.image.data


async def test_an_image_is_equal_for_equal_seeds_and_prompts_only(engine):
    first = await drawn(engine)

    assert len(first) == 3 * SIDE * SIDE
    assert await drawn(engine) == first
    assert await drawn(engine, seed=2) != first
    assert await drawn(engine, prompt="z") != first


async def test_steps_are_reported_and_previews_are_spread_among_them(engine):
    slot, *steps, answer = await events(engine, steps=4, previews=1)
    previews = [one.preview for one in steps if one.preview is not None]

    assert isinstance(slot, SlotAssigned)
    assert steps[-1].step == steps[-1].steps == 4  # earlier ones may have been joined
    assert [(one.width, one.height) for one in previews] == [(SIDE // 8, SIDE // 8)]
    assert isinstance(answer, ImageDrawn)


@pytest.mark.parametrize("steps", [3, 9])
async def test_tiles_of_the_autoencoder_are_not_counted_as_steps(path, monkeypatch, steps):
    use_library(monkeypatch)
    model = DiffusionModel(config(path).start_command(deaths=0, listening_fd=None))
    source = Pixels(width=SIDE, height=SIDE, data=bytes(3 * SIDE * SIDE))
    reported: list[DrawingStep] = []
    edit = command(steps=steps, source=source, strength=1.0, tiles=True)
    model.compute(edit, lambda: False, reported.append)

    assert [(one.step, one.steps) for one in reported] == [(n, steps) for n in range(1, steps + 1)]


async def test_a_cancelled_command_gets_its_last_steps_and_no_answer(path, monkeypatch):
    use_library(monkeypatch)
    model = DiffusionModel(config(path).start_command(deaths=0, listening_fd=None))
    told: list[DrawingStep] = []

    def end(*, is_stopped: bool) -> bool:
        """Look for a cancellation for so long that the image is finished meanwhile."""
        for thread in threading.enumerate():
            if thread.name == "drawing":
                thread.join()
        return is_stopped

    model.compute(command(steps=3), lambda: end(is_stopped=False), told.append)
    with pytest.raises(Cancelled):
        model.compute(command(steps=3), lambda: end(is_stopped=True), told.append)

    assert [one.step for one in told[:3]] == [1, 2, 3]


@pytest.mark.skipif(HAS_LIBRARY, reason="the library does not report what it allocates")
async def test_memory_of_images_is_freed(path, monkeypatch):
    use_library(monkeypatch)
    import stable_diffusion_cpp as stand_in

    library = DiffusionLibrary(path, None, {}, threads=1)
    allocated: list[int] = []
    freed: list[int | None] = []
    allocate, free = stand_in._malloc, library._free

    def record(size: int) -> int:
        allocated.append(allocate(size))
        return allocated[-1]

    def record_free(pointer: Any) -> None:
        freed.append(ctypes.cast(pointer, ctypes.c_void_p).value)
        free(pointer)

    monkeypatch.setattr(stand_in, "_malloc", record)
    monkeypatch.setattr(library, "_free", record_free)
    library.draw(command(), lambda *_: None)

    assert len(allocated) == 2
    assert freed == allocated


async def test_an_image_begins_with_another_one_within_its_mask(engine):
    black = Pixels(width=SIDE, height=SIDE, data=bytes(3 * SIDE * SIDE))
    white = Pixels(width=SIDE, height=SIDE, data=b"\xff" * 3 * SIDE * SIDE)
    half = b"\xff" * (SIDE * SIDE // 2) + bytes(SIDE * SIDE // 2)
    images = {
        await drawn(engine, source=black, steps=2),
        await drawn(engine, source=white, steps=2),
        await drawn(engine, source=white, steps=2, mask=half),
    }

    assert len(images) == 3


async def test_a_cancelled_drawing_ends_its_worker_and_no_other_request(engine):
    before = engine.pid
    async with aclosing(engine.draw(command(steps=LONG))) as running:
        async for event in running:
            if isinstance(event, DrawingStep):
                assert (await engine.status()).running == 1  # it answers in the middle of a step
                break
    assert await comes_true(lambda: engine.pid not in (before, None), within_s=60)
    await engine.ready()

    assert len(await drawn(engine)) == 3 * SIDE * SIDE
    assert (await engine.status()).deaths == 0


async def test_a_killed_worker_loses_its_drawing_and_the_next_one_draws(engine):
    pid = engine.pid
    async with aclosing(engine.draw(command(steps=LONG))) as running:
        await anext(running)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineDown):
            async for _ in running:
                pass
    await engine.ready()

    assert engine.pid != pid
    assert len(await drawn(engine)) == 3 * SIDE * SIDE


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("size", {"width": SIDE + 8}),
        ("size", {"height": 0}),
        ("image", {"source": Pixels(width=SIDE, height=SIDE, data=b"short")}),
        ("mask", {"mask": bytes(SIDE * SIDE)}),
        ("prompt", {"prompt": "a\0b"}),
        ("prompt", {"prompt": "a" * 4001}),  # would be computed for minutes
        ("prompt", {"prompt": f"(a:{'9' * 40})"}),  # these weights ended the native code
        ("prompt", {"prompt": f"(a:0.{'0' * 50}1)"}),
        ("prompt", {"prompt": "(a:.)"}),
        ("prompt", {"negative_prompt": "(a:1.2.3)"}),
    ],
)
async def test_an_unsupported_image_is_refused_by_its_field(engine, field, fields):
    with pytest.raises(CommandFailed) as refused:
        await events(engine, **fields)

    assert (refused.value.failure, refused.value.field) == (Failure.INVALID, field)


async def test_a_model_without_a_part_is_not_loaded(tmp_path, engine):
    path = write_tiny_diffusion(tmp_path / "network.gguf", without="tae.")
    async with EngineClient(config(path)) as one:
        with pytest.raises(EngineStartError, match="needs more files: vae"):
            await one.ready()


@pytest.mark.skipif(HAS_LIBRARY, reason="the stand-in fails by its prompt, the library does not")
async def test_a_failed_drawing_is_an_error_and_a_crash_ends_the_worker_only(engine):
    with pytest.raises(CommandFailed) as refused:
        await events(engine, prompt="fail")
    with pytest.raises(EngineDown):
        await events(engine, prompt="crash")
    await engine.ready()

    assert refused.value.failure is Failure.INTERNAL
    assert len(await drawn(engine)) == 3 * SIDE * SIDE


@pytest.mark.skipif(not HAS_LIBRARY, reason="needs the extra `draw`")
async def test_the_library_has_the_samplers_and_schedulers_that_settings_may_name():
    import stable_diffusion_cpp

    from llm_backend.backends.local.image_setup import SAMPLERS, SCHEDULERS

    assert stable_diffusion_cpp.SAMPLE_METHOD_MAP.keys() >= set(SAMPLERS)
    assert stable_diffusion_cpp.SCHEDULER_MAP.keys() >= set(SCHEDULERS)
