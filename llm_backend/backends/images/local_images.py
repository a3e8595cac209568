"""Local images: drawn by local models, one at a time, with previews and progress."""

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from msgspec import structs

from llm_backend.backends.images.image_request import (
    GeneratedImage,
    ImageProgress,
    ImageRequest,
    Preview,
)
from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.image_setup import LocalImageSetup
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.engine import EngineDown, EngineStartError
from llm_backend.engine.messages import Draw, DrawingStep, ImageDrawn, Pixels, SlotAssigned
from llm_backend.errors import Unsupported
from llm_backend.extras import install_command, is_installed
from llm_backend.fair_queue import FairSemaphore
from llm_backend.offload import offload_media

NOT_INSTALLED = "drawing_not_installed"
"""Code of the error for a missing library or a missing part of a model."""

_TILED_PIXELS = 512 * 512  # images with more pixels are decoded in tiles, to save gigabytes
_SEEDS = 2**31
_ATTEMPTS = 8  # of an image; one fails if a cancelled request has just ended the worker


@dataclass(frozen=True, kw_only=True)
class ImageUsage:
    """Seconds of waiting for a permit, images that were drawn, and the seconds for them."""

    queue_s: float
    images: int
    elapsed_s: float


class LocalImages:
    """Draws images by local models. `observe` gets a model's name and the usage of each request
    that got its permit, also if its client disconnected."""

    def __init__(self, permits: FairSemaphore, observe: Callable[[str, ImageUsage], None]) -> None:
        self._permits = permits
        self._observe = observe
        self._running: set[_LocalRequest] = set()

    def progress(self) -> Sequence[ImageProgress]:
        """Returns all requests for images of this process that are not answered yet."""
        return [ImageProgress(model=one.model.card.id, share=one.share) for one in self._running]

    async def draw(
        self, drawing: ImageRequest, model: LocalModel, *, fairness_key: str
    ) -> AsyncGenerator[Preview | GeneratedImage, None]:
        """Yields the images as they are finished, each after its previews. Callers wait for
        their permit in turns. Closing the generator stops the drawing. Raises `ApiError`."""
        setup = _check(model)
        command = await offload_media(_draw_command, drawing, setup)
        request = _LocalRequest(model, drawing.count)
        self._running.add(request)
        try:
            async with self._permits.hold(fairness_key) as queue_s:
                started_at = time.monotonic()
                try:
                    async with aclosing(request.draw(command)) as events:
                        async for event in events:
                            yield event
                finally:
                    usage = ImageUsage(
                        queue_s=queue_s,
                        images=request.images,
                        elapsed_s=time.monotonic() - started_at,
                    )
                    self._observe(model.card.id, usage)
        finally:
            self._running.remove(request)


class _LocalRequest:
    """One request for images of a local model."""

    def __init__(self, model: LocalModel, count: int) -> None:
        self.model = model
        self.share: float | None = None
        self.images = 0
        self._count = count

    async def draw(self, command: Draw) -> AsyncGenerator[Preview | GeneratedImage, None]:
        """Yields the images, each after its previews, and each with a seed of its own."""
        with translate_engine_errors():
            while self.images < self._count:
                seed, has_begun = command.seed + self.images, self.images > 0
                part = structs.replace(command, seed=seed, has_begun=has_begun)
                async with aclosing(self._draw_one(part)) as events:
                    async for event in events:
                        yield event
                self.images += 1

    async def _draw_one(self, command: Draw) -> AsyncGenerator[Preview | GeneratedImage, None]:
        """Yields the previews and then one image. If the worker ends before the first event, the
        command is sent again: cancelling a request ends the worker, and this command may have been
        sent to it already."""
        has_event, previews, attempts = False, 0, 1
        while True:
            try:
                async with (
                    self.model.handle.use() as engine,
                    aclosing(engine.draw(command)) as events,
                ):
                    async for event in events:
                        has_event = True
                        self._observe_step(event)
                        if (image := await _translate(event, command, previews)) is not None:
                            previews += isinstance(image, Preview)
                            yield image
                return
            except EngineDown as error:
                if has_event or attempts == _ATTEMPTS or isinstance(error, EngineStartError):
                    raise
                attempts += 1

    def _observe_step(self, event: SlotAssigned | DrawingStep | ImageDrawn) -> None:
        done = event.step / event.steps if isinstance(event, DrawingStep) else 0.0
        self.share = max(self.share or 0.0, (self.images + done) / self._count)


def missing_to_draw(model: str, setup: LocalImageSetup) -> str | None:
    """Returns a sentence that names what a model lacks to draw; None if it can."""
    if not is_installed("draw"):
        return f"`{model}` needs an extra, which is not installed: {install_command('draw')}."
    if not setup.missing:
        return None
    files = ", ".join(f"{part}: FILE" for part in setup.missing)
    return (
        f"`{model}` needs further files, which the setting `image_models` names: "
        f"{{{model}: {{{files}}}}}."
    )


def _check(model: LocalModel) -> LocalImageSetup:
    setup = model.image_setup
    assert setup is not None, "the model draws"
    if (missing := missing_to_draw(model.card.id, setup)) is not None:
        raise Unsupported(missing, param="model", code=NOT_INSTALLED)
    return setup


def image_size(drawing: ImageRequest, setup: LocalImageSetup) -> tuple[int, int]:
    """Returns the size of an image: the requested one, or else the model's."""
    return drawing.size or setup.size


def _draw_command(drawing: ImageRequest, setup: LocalImageSetup) -> Draw:
    """Returns the command for a drawing; decodes its images."""
    parameters, size = setup.parameters, image_size(drawing, setup)
    seed = secrets.randbelow(_SEEDS) if parameters.seed is None else parameters.seed
    guidance = parameters.cfg_scale
    source, mask = _images(drawing, size)
    return Draw(
        prompt=drawing.prompt,
        width=size[0],
        height=size[1],
        steps=setup.steps[drawing.quality],
        seed=seed,
        guidance=setup.file.guidance if guidance is None else guidance,
        distilled_guidance=parameters.distilled_cfg_scale,
        negative_prompt=parameters.negative_prompt,
        sampler=parameters.sampler_name,
        scheduler=parameters.scheduler,
        source=source,
        mask=mask,
        strength=parameters.denoising_strength,
        previews=drawing.previews,
        tiles=size[0] * size[1] > _TILED_PIXELS,
    )


def _images(drawing: ImageRequest, size: tuple[int, int]) -> tuple[Pixels | None, bytes | None]:
    if drawing.source is None:
        return None, None
    from llm_backend.backends.images.image_files import mask_pixels, source_pixels

    data = source_pixels(drawing.source, size)
    mask = None if drawing.mask is None else mask_pixels(drawing.mask, size)
    return Pixels(width=size[0], height=size[1], data=data), mask


async def _translate(
    event: SlotAssigned | DrawingStep | ImageDrawn, command: Draw, previews: int
) -> Preview | GeneratedImage | None:
    """Returns the image of an event, if it has one."""
    size = (command.width, command.height)
    if isinstance(event, ImageDrawn):
        return GeneratedImage(data=await offload_media(_encode, event.image, size))
    if isinstance(event, DrawingStep) and event.preview is not None:
        return Preview(data=await offload_media(_encode, event.preview, size), index=previews)
    return None


def _encode(pixels: Pixels, size: tuple[int, int]) -> bytes:
    from llm_backend.backends.images.image_files import encode_pixels

    return encode_pixels(pixels, size)
