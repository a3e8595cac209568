"""Settings of pictures that image servers draw."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class DrawingSteps(BaseModel):
    """Numbers of denoising steps by quality; `auto` and `standard` are `medium`, `hd` is `high`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int = Field(10, ge=1, le=1000)
    medium: int = Field(20, ge=1, le=1000)
    high: int = Field(40, ge=1, le=1000)


class ImageModelSettings(BaseModel):
    """Settings of one model of an image server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: DrawingSteps = DrawingSteps()
    parameters: dict[str, Any] = {}  # Any: JSON values


class ImagesSettings(BaseModel):
    """Pictures that backends of the kind `sdapi` draw."""

    image_models: dict[str, ImageModelSettings] = Field(
        {},
        description="Models of image servers by name, each with its denoising steps by quality and "
        "with further fields of each request to the server: `{MODEL: {steps: {low: 10, medium: 20, "
        "high: 40}, parameters: {cfg_scale: 7}}}`.",
    )
    drawn_pixels_limit: int = Field(
        3840 * 2160,
        ge=4096,
        description="Maximum number of pixels of a picture that an image server is asked for.",
    )
