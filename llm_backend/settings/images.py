"""Settings of images that image servers and local models draw."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

LOCAL_PIXELS = 1536 * 1024
"""Default maximum number of pixels of an image of a local model, for which memory is planned."""


class DrawingSteps(BaseModel):
    """Numbers of denoising steps by quality; `auto` and `standard` are `medium`, `hd` is `high`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int = Field(10, ge=1, le=1000)
    medium: int = Field(20, ge=1, le=1000)
    high: int = Field(40, ge=1, le=1000)


class ImageModelSettings(BaseModel):
    """Settings of one model that draws. For a local model, `vae` and the other files are paths or
    names in the models folder, and `pixels_limit` bounds its images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: DrawingSteps = DrawingSteps()
    parameters: dict[str, Any] = {}  # Any: JSON values
    vae: Path | None = None
    taesd: Path | None = None
    clip_l: Path | None = None
    clip_g: Path | None = None
    t5xxl: Path | None = None
    llm: Path | None = None
    pixels_limit: int = Field(LOCAL_PIXELS, ge=4096)


class ImagesSettings(BaseModel):
    """Images that upstreams of the kind `sdapi`, and local models, draw."""

    image_models: dict[str, ImageModelSettings] = Field(
        {},
        description="Models that draw, by name, each with its denoising steps by quality and with "
        "further parameters of each image: `{MODEL: {steps: {low: 10, medium: 20, high: 40}, "
        "parameters: {cfg_scale: 7}}}`. For local models also the additional files that they need: "
        "`vae`, `taesd`, `clip_l`, `clip_g`, `t5xxl`, `llm`; and `pixels_limit`, the largest "
        "image, for which memory is planned (1,572,864, at most `drawn_pixels_limit`).",
    )
    drawn_pixels_limit: int = Field(
        3840 * 2160,
        ge=4096,
        description="Maximum number of pixels of an image that a model is asked for.",
    )
    drawing_deadline_s: float = Field(
        600,
        gt=0,
        description="Seconds that a request for images of a local model waits for its turn: an "
        "API process draws one image at a time. As many as `queue_limit` wait.",
    )
