"""Setup of a local model that draws: its files, steps and parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from llm_backend.engine.messages import refuse_prompt
from llm_backend.json_types import JsonMapping
from llm_backend.model_files import DiffusionFile

SAMPLERS = (
    "euler", "euler_a", "heun", "dpm2", "dpm++2s_a", "dpm++2m", "dpm++2mv2", "ipndm", "ipndm_v",
    "lcm", "ddim_trailing", "tcd", "res_multistep", "res_2s", "er_sde",
)  # fmt: skip
"""Values of `sampler_name` for local models, as stable-diffusion.cpp names them."""

SCHEDULERS = (
    "discrete", "karras", "exponential", "ays", "gits", "sgm_uniform", "simple", "smoothstep",
    "kl_optimal", "lcm", "bong_tangent",
)  # fmt: skip
"""Values of `scheduler` for local models."""


@dataclass(frozen=True, kw_only=True)
class LocalParameters:
    """Parameters of a local model, by their names in `/sdapi/v1`; None is the model's own, or a
    random `seed`. Raises `ValueError` for a value that cannot be used."""

    negative_prompt: str = ""
    cfg_scale: float | None = None
    distilled_cfg_scale: float = 3.5
    denoising_strength: float = 0.75
    sampler_name: str | None = None
    scheduler: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        for name, kind, least, greatest in (
            ("cfg_scale", float, 0, 100),
            ("distilled_cfg_scale", float, 0, 100),
            ("denoising_strength", float, 0, 1),
            ("seed", int, 0, 2**62),
            ("width", int, 64, 8192),
            ("height", int, 64, 8192),
        ):
            value = getattr(self, name)
            kinds = (int,) if kind is int else (int, float)
            if value is not None and (type(value) not in kinds or not least <= value <= greatest):
                raise ValueError(
                    f"`{name}` must be a number from {least} to {greatest}, not {value!r}"
                )
        for name, values in (("sampler_name", SAMPLERS), ("scheduler", SCHEDULERS)):
            value = getattr(self, name)
            if value is not None and value not in values:
                raise ValueError(f"`{name}` must be one of {', '.join(values)}, not {value!r}")
        if not isinstance(self.negative_prompt, str):
            raise ValueError("`negative_prompt` must be a text")
        if (reason := refuse_prompt(self.negative_prompt)) is not None:
            raise ValueError(f"`negative_prompt` cannot be used: {reason.rstrip('.')}")


def local_parameters(parameters: JsonMapping) -> LocalParameters:
    """Returns the parameters of a local model. Raises `ValueError` for unknown ones, too."""
    names = [one.name for one in fields(LocalParameters)]
    unknown = [name for name in parameters if name not in names]
    if unknown:
        raise ValueError(f"`{unknown[0]}` is none of {', '.join(names)}")
    return LocalParameters(**parameters)


@dataclass(frozen=True, kw_only=True)
class LocalImageSetup:
    """Setup of a local model that draws: file, files of its parts by name, steps by quality, and
    parameters. An image may have at most `pixels_limit` pixels. Raises `ValueError` for
    parameters that this model cannot use."""

    file: DiffusionFile
    parts: Mapping[str, Path]
    steps: Mapping[str, int]
    parameters: LocalParameters
    pixels_limit: int

    def __post_init__(self) -> None:
        step = self.file.side_step
        for name in ("width", "height"):
            side: int | None = getattr(self.parameters, name)
            if side is not None and side % step:
                raise ValueError(f"`{name}` must be a multiple of {step}, not {side}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of an image if the request has no size."""
        side = self.file.side
        return self.parameters.width or side, self.parameters.height or side

    @property
    def memory_bytes(self) -> int:
        """Memory of the loaded model and of its largest image, an estimate."""
        width, height = self.size
        return self.file.memory_bytes(self.parts, max(self.pixels_limit, width * height))

    @property
    def missing(self) -> Sequence[str]:
        """Names of needed parts that the settings lack."""
        return self.file.lacks(self.parts)
