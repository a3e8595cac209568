"""A loaded diffusion model: one image at a time, with its steps and previews."""

import logging
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.diffusion.library import CHANNELS, DiffusionLibrary
from llm_backend.engine.messages import (
    ENDED_ITSELF_STATUS,
    Draw,
    DrawingStep,
    Failure,
    ImageDrawn,
    LoadModel,
    ModelInfo,
    ModelKind,
    Pixels,
    refuse_prompt,
)
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.pass_threads import first_thread_count
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialCommand
from llm_backend.model_files import HeaderError, read_diffusion

_log = logging.getLogger("llm_backend.engine.diffusion")

_POLL_S = 0.02  # interval of checks for a cancellation
_IMAGE_MESSAGE = "The image must have the requested width and height."
_MASK_MESSAGE = "A mask needs an image, and must have the requested width and height."


class DiffusionModel:
    """A loaded diffusion model. The constructor raises `LoadError`.

    Native code draws in a thread, because it cannot be stopped and reports nothing within a step.
    Meanwhile the worker answers commands, and exits if the image is cancelled.
    """

    kind = ModelKind.IMAGES

    def __init__(self, config: LoadModel) -> None:
        try:
            self._file = read_diffusion(config.model_path)
        except HeaderError as error:
            raise LoadError(str(error)) from error
        if missing := self._file.lacks(config.drawing_parts):
            raise LoadError(f"{config.model_path} needs more files: {', '.join(missing)}.")
        path, is_network = config.model_path, self._file.is_network_only
        self._library = DiffusionLibrary(
            None if is_network else path,
            path if is_network else None,
            config.drawing_parts,
            threads=first_thread_count(config, self._file.file_bytes),
        )

    def info(self) -> ModelInfo:
        """Information about the model."""
        file = self._file
        return ModelInfo(
            kind=self.kind,
            architecture=file.family.name.lower(),
            name=file.path.stem,
            description=file.description,
            parameters=file.parameters,
            size_bytes=file.file_bytes,
            backend=self._library.version,
        )

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for an image that this model cannot draw."""
        assert isinstance(command, Draw), "the engine takes no other command for this kind"
        step, pixels = self._file.side_step, command.width * command.height
        if min(command.width, command.height) < step or (command.width | command.height) % step:
            message = f"Width and height must be multiples of {step}."
            raise CommandRefused(Failure.INVALID, message, "size")
        source, mask = command.source, command.mask
        if source is not None and len(source.data) != pixels * CHANNELS:
            raise CommandRefused(Failure.INVALID, _IMAGE_MESSAGE, "image")
        if mask is not None and (source is None or len(mask) != pixels):
            raise CommandRefused(Failure.INVALID, _MASK_MESSAGE, "mask")
        for prompt in (command.prompt, command.negative_prompt):
            if (reason := refuse_prompt(prompt)) is not None:
                raise CommandRefused(Failure.INVALID, reason, "prompt")

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], report: Report
    ) -> ImageDrawn:
        """Returns the image. `should_stop` is called often meanwhile; if it returns True, the
        process ends, or `Cancelled` is raised if the image is finished. Raises `DecodeError` if
        the native code fails."""
        assert isinstance(command, Draw), "the engine takes no other command for this kind"
        drawing = _Drawing(self._library, command)
        thread = threading.Thread(target=drawing.run, name="drawing", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            drawing.report_steps(report)
            if should_stop():
                if thread.is_alive():
                    _end_process()
                raise Cancelled
        drawing.report_steps(report)  # those after the last check
        if drawing.error is not None:
            raise drawing.error
        if drawing.image is None:
            raise DecodeError(f"stable-diffusion.cpp failed: {self._library.errors.pop_reason()}")
        return ImageDrawn(id=command.id, image=drawing.image)


@dataclass
class _Drawing:
    """An image that is being drawn in a thread of its own."""

    library: DiffusionLibrary
    command: Draw
    steps: "queue.SimpleQueue[DrawingStep]" = field(default_factory=queue.SimpleQueue)
    image: Pixels | None = None
    error: Exception | None = None
    _previews: int = 0

    def run(self) -> None:
        """Draws. `error` is an exception of Python code: if the native code fails, it returns no
        image or crashes."""
        try:
            self.image = self.library.draw(self.command, self._take_step)
        except Exception as error:  # would be lost in this thread; `compute` raises it
            self.error = error

    def report_steps(self, report: Report) -> None:
        """Reports the steps that have been taken since the last call."""
        while not self.steps.empty():
            report(self.steps.get())

    def _take_step(self, step: int, steps: int, image: Pixels) -> None:
        """Reports a step, with the unfinished image where a preview is due."""
        share = (self._previews + 1) / (self.command.previews + 1)
        is_due = self._previews < self.command.previews and share <= step / steps < 1
        self._previews += is_due
        preview = image if is_due else None
        self.steps.put(DrawingStep(id=self.command.id, step=step, steps=steps, preview=preview))


def _end_process() -> None:
    """Ends this worker in the middle of native code. Its supervisor starts another one."""
    _log.info("engine.drawing_abandoned")
    os._exit(ENDED_ITSELF_STATUS)
