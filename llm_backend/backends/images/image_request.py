"""The images that a request asks a model for, and those that it gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_backend.json_types import JsonMapping


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Number of denoising steps by quality (`low`, `medium`, `high`), and further fields of each
    request to an image server, by their names in `/sdapi/v1`."""

    steps: Mapping[str, int]
    parameters: JsonMapping = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Images to draw: `count` of them, of `size` in pixels (None: the model's own size).

    `source` is a PNG to begin with. `mask` is a PNG that is white where the source is drawn again.
    `previews` is the maximum number of previews of each image.
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
    """Unfinished image: a file as the image server sends it, or a PNG of a local model, and its
    number from 0 on."""

    data: bytes
    index: int


@dataclass(frozen=True, kw_only=True)
class GeneratedImage:
    """Finished image: a file as the image server sends it, or a PNG of a local model."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class ImageProgress:
    """A request for images that is not answered yet. `share` is the part of the work that is
    done, from 0 to 1; None while it waits, or if its image server does not report it."""

    model: str
    share: float | None
