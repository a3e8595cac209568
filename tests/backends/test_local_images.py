"""Images of local models: whose worker is waited for, and how often."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from llm_backend.backends.base import ModelCard
from llm_backend.backends.images import local_images
from llm_backend.backends.images.image_request import GeneratedImage, ImageRequest
from llm_backend.backends.images.local_images import LocalImages
from llm_backend.backends.local.image_setup import LocalImageSetup, LocalParameters
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.engine import EngineDown, EngineStartError
from llm_backend.engine.messages import Draw, ImageDrawn, Pixels, SlotAssigned
from llm_backend.errors import ApiError
from llm_backend.fair_queue import FairSemaphore
from llm_backend.model_files.diffusion import DiffusionFamily, DiffusionFile

SIDE = 64


class Restarting:
    """Handle and engine of a model whose worker is ended `ends` times by cancellations of other
    processes."""

    def __init__(self, ends: int, error: type[EngineDown], *, begins: bool = False) -> None:
        self.ends, self.tries = ends, 0
        self._error, self._begins = error, begins

    @asynccontextmanager
    async def use(self) -> AsyncIterator["Restarting"]:
        yield self

    async def draw(self, command: Draw) -> AsyncIterator[SlotAssigned | ImageDrawn]:
        self.tries += 1
        if self._begins:
            yield SlotAssigned(id=command.id, prompt_tokens=0)
        if self.tries <= self.ends:
            raise self._error("the worker has ended", 1)
        pixels = Pixels(width=SIDE, height=SIDE, data=bytes(3 * SIDE * SIDE))
        yield ImageDrawn(id=command.id, image=pixels)


async def drawn(engine: Restarting, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(local_images, "is_installed", lambda _extra: True)
    file = DiffusionFile(
        path=Path("a"), family=DiffusionFamily.SD, held=("vae",), parameters=1, file_bytes=1
    )
    setup = LocalImageSetup(
        file=file,
        parts={},
        steps={"medium": 1},
        parameters=LocalParameters(width=SIDE, height=SIDE),
        pixels_limit=SIDE * SIDE,
    )
    handle: Any = engine
    card = ModelCard(id="a", created_at=1, owned_by="test")
    model = LocalModel(card, handle, image_setup=setup)
    images = LocalImages(FairSemaphore(1, depth=1, timeout_s=1), lambda *_: None)
    return [one async for one in images.draw(ImageRequest(prompt="a"), model, fairness_key="a")]


async def test_an_image_waits_for_workers_that_end_before_it_has_begun(monkeypatch):
    engine = Restarting(7, EngineDown)
    (image,) = await drawn(engine, monkeypatch)

    assert isinstance(image, GeneratedImage)
    assert engine.tries == 8


@pytest.mark.parametrize(
    ("engine", "tries"),
    [
        (Restarting(9, EngineDown), 8),
        (Restarting(9, EngineDown, begins=True), 1),
        (Restarting(9, EngineStartError), 1),
    ],
)
async def test_an_image_that_has_begun_or_cannot_begin_is_a_503(monkeypatch, engine, tries):
    with pytest.raises(ApiError) as failed:
        await drawn(engine, monkeypatch)

    assert (failed.value.status, engine.tries) == (503, tries)
