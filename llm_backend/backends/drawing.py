"""A drawing: the pictures that a request asks a model for, and those that it gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from llm_backend.json_types import JsonMapping
from llm_backend.model_files import DiffusionFile


@dataclass(frozen=True, kw_only=True)
class DrawingOptions:
    """Number of denoising steps by quality (`low`, `medium`, `high`), and further fields of each
    request to an image server, by their names in `/sdapi/v1`."""

    steps: Mapping[str, int]
    parameters: JsonMapping = field(default_factory=dict)


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
    """Parameters of a local model, by their names in `/sdapi/v1`; None is the model's own. Raises
    `ValueError` for a value that cannot be used."""

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
                raise ValueError(f"`{name}` is a number from {least} to {greatest}, not {value!r}")
        for name, values in (("sampler_name", SAMPLERS), ("scheduler", SCHEDULERS)):
            value = getattr(self, name)
            if value is not None and value not in values:
                raise ValueError(f"`{name}` is one of {', '.join(values)}, not {value!r}")
        if not isinstance(self.negative_prompt, str):
            raise ValueError("`negative_prompt` is a text")


def local_parameters(parameters: JsonMapping) -> LocalParameters:
    """Returns the parameters of a local model. Raises `ValueError` for an unknown one too."""
    names = [one.name for one in fields(LocalParameters)]
    unknown = [name for name in parameters if name not in names]
    if unknown:
        raise ValueError(f"`{unknown[0]}` is none of {', '.join(names)}")
    return LocalParameters(**parameters)


@dataclass(frozen=True, kw_only=True)
class LocalDrawing:
    """Setup of a local model that draws: file, files of its parts by name, steps by quality, and
    parameters."""

    file: DiffusionFile
    parts: Mapping[str, Path]
    steps: Mapping[str, int]
    parameters: LocalParameters

    @property
    def missing(self) -> Sequence[str]:
        """Names of the parts that no setting names."""
        return self.file.lacks(self.parts)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Pictures to draw: `count` of them, of `size` in pixels (None: the server's own size).

    `source` is a PNG to begin with, `mask` a PNG that is white where the source is drawn again, and
    `previews` the maximum number of previews of each picture.
    """

    prompt: str
    count: int = 1
    size: tuple[int, int] | None = None
    quality: str = "medium"
    source: bytes | None = None
    mask: bytes | None = None
    previews: int = 0


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Unfinished picture: a file as the model's server sends it, and its number from 0 on."""

    data: bytes
    index: int


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Finished picture: a file as the model's server sends it."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class DrawingProgress:
    """A request for pictures that is not answered yet. `share` is the part of the work that is
    done, from 0 to 1; None while it waits, or if its image server does not tell."""

    model: str
    share: float | None
