"""stable-diffusion.cpp by its C functions: a context, and images drawn in it.

The classes of the binding are not used, because they load files that a prompt names as
`<lora:PATH:1>`, and call callbacks of an earlier image after they have been freed.
"""

import ctypes
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_backend.engine.messages import Draw, Pixels
from llm_backend.engine.model import LoadError
from llm_backend.engine.native_log import NativeLog

_log = logging.getLogger("llm_backend.engine.diffusion.native")

CHANNELS = 3
_LATENT_PREVIEW = 1  # a mode of previews: colours of the latent image
_CONTEXT_FIELDS = {  # parameters of a context, by the names of parts
    "vae": "vae_path",
    "taesd": "taesd_path",
    "clip_l": "clip_l_path",
    "clip_g": "clip_g_path",
    "t5xxl": "t5xxl_path",
    "llm": "llm_path",
}

_ERROR = 3  # level of the log: SD_LOG_ERROR

OnStep = Callable[[int, int, Pixels], None]
"""Called after a step with its number, that of all steps, and the unfinished image."""


class _ErrorLog(NativeLog):
    """Errors of the native code. Other lines are dropped, because they may contain prompts."""

    def _forward(self, level: int, text: bytes, _user_data: object) -> None:
        if level >= _ERROR:
            self.errors.append(text.decode(errors="replace").strip())


class DiffusionLibrary:
    """A model in native code. Exactly one of `checkpoint` and `network` is given: a file with some
    or all parts, or the diffusion network alone. Raises `LoadError`."""

    def __init__(
        self,
        checkpoint: Path | None,
        network: Path | None,
        parts: Mapping[str, str],
        *,
        threads: int,
    ) -> None:
        try:
            import stable_diffusion_cpp as library
            from stable_diffusion_cpp import stable_diffusion_cpp as functions
        except (ImportError, RuntimeError, OSError) as error:  # also for its native library
            raise LoadError(f"stable-diffusion.cpp is not installed: {error}") from error
        self._library: Any = library  # Any: structures and functions of ctypes
        self._on_step: OnStep = _ignore
        self._latest_preview: Pixels | None = None
        self._native: Any = functions._lib
        self._free: Any = ctypes.CDLL(None).free  # the library has no function that frees an image
        self._free.argtypes, self._free.restype = [ctypes.c_void_p], None
        self.errors = _ErrorLog(_log, library.sd_log_callback)
        self.errors.redirect(library.sd_set_log_callback)
        self._step_callback = library.sd_progress_callback(self._step)
        self._preview_callback = library.sd_preview_callback(self._preview)
        library.sd_set_progress_callback(self._step_callback, None)
        mode = _LATENT_PREVIEW
        library.sd_set_preview_callback(self._preview_callback, mode, 1, True, False, None)
        params = library.sd_ctx_params_t()
        self._native.sd_ctx_params_init(ctypes.byref(params))
        params.model_path = _bytes(checkpoint)
        params.diffusion_model_path = _bytes(network)
        for part, path in parts.items():
            setattr(params, _CONTEXT_FIELDS[part], path.encode())
        params.vae_decode_only = False  # edits begin with an image
        params.free_params_immediately = False
        params.n_threads = threads
        self._context = library.new_sd_ctx(ctypes.byref(params))
        if not self._context:
            raise LoadError(f"stable-diffusion.cpp cannot load it: {self.errors.pop_reason()}")

    @property
    def version(self) -> str:
        """The library's version, and the processor instructions that it uses."""
        system: str = self._library.sd_get_system_info().decode(errors="replace")
        used = [name.strip() for name, _, is_used in _settings(system) if is_used == "1"]
        return " ".join(["stable-diffusion.cpp", self._library.__version__, *used])

    def draw(self, command: Draw, on_step: OnStep) -> Pixels | None:
        """Returns the image; None if the native code fails, for the reason in `errors`. Drawing
        cannot be stopped. `on_step` is called in the calling thread."""
        params, _buffers = self._params(command)
        self._on_step, self._latest_preview = on_step, None
        try:
            images = self._library.generate_image(self._context, ctypes.byref(params))
        finally:
            self._on_step = _ignore
        if not images:
            return None
        data = images[0].data
        try:
            return _pixels(images[0]) if data else None
        finally:  # the array and its only image are allocated by `malloc` and `calloc`
            self._free(data)
            self._free(images)

    def _step(self, step: int, steps: int, _seconds: float, _data: object) -> None:
        """Takes what the native code counts. It also counts the tiles of the autoencoder, before
        and after the steps, and bytes of files; only a step has a preview before it."""
        preview, self._latest_preview = self._latest_preview, None
        if preview is not None:
            self._on_step(step, steps, preview)

    def _preview(self, _step: int, count: int, frames: Any, _noisy: bool, _data: object) -> None:
        if count:
            self._latest_preview = _pixels(frames[0])

    def _params(self, command: Draw) -> tuple[Any, list[Any]]:
        """Returns the parameters of an image, and the buffers to which they point."""
        library = self._library
        params = library.sd_img_gen_params_t()
        self._native.sd_img_gen_params_init(ctypes.byref(params))
        params.prompt = command.prompt.encode()
        params.negative_prompt = command.negative_prompt.encode()
        params.width, params.height = command.width, command.height
        params.seed = command.seed
        params.strength = command.strength
        params.vae_tiling_params.enabled = command.tiles
        sample = params.sample_params
        sample.sample_steps = command.steps
        sample.guidance.txt_cfg = command.guidance
        sample.guidance.distilled_guidance = command.distilled_guidance
        if command.sampler is not None:
            sample.sample_method = library.SAMPLE_METHOD_MAP[command.sampler]
        if command.scheduler is not None:
            sample.scheduler = library.SCHEDULER_MAP[command.scheduler]
        buffers = []
        if command.source is not None:
            size = command.width * command.height
            white = b"\xff" * size
            for name, channels, data in (
                ("init_image", CHANNELS, command.source.data),
                ("mask_image", 1, command.mask or white),
            ):
                buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
                buffers.append(buffer)
                image = getattr(params, name)
                image.width, image.height = command.width, command.height
                image.channel = channels
                image.data = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_uint8))
        return params, buffers


def _ignore(*_: object) -> None:
    """Drops the progress that the native code reports while nothing is drawn."""


def _settings(system: str) -> list[tuple[str, str, str]]:
    pairs = (part.partition("=") for line in system.splitlines() for part in line.split("|"))
    return [(name, equals, value.strip()) for name, equals, value in pairs]


def _bytes(path: Path | None) -> bytes:
    return b"" if path is None else bytes(path)


def _pixels(image: Any) -> Pixels:
    """Returns a copy of an image of the library, in RGB."""
    count = image.width * image.height
    data = ctypes.string_at(image.data, count * image.channel)
    if image.channel != CHANNELS:  # grey, or with transparency
        step = image.channel
        offsets = range(3) if step > CHANNELS else (0, 0, 0)
        colours = bytearray(count * CHANNELS)
        for channel, offset in enumerate(offsets):
            colours[channel::CHANNELS] = data[offset::step]
        data = bytes(colours)
    return Pixels(width=image.width, height=image.height, data=data)
