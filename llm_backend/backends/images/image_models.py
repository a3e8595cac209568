"""Models that draw, of image servers and of this machine, behind one interface."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING

from llm_backend.backends.images.image_request import (
    GeneratedImage,
    ImageProgress,
    ImageRequest,
    Preview,
)
from llm_backend.backends.images.local_images import LocalImages, image_size
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import ImageServerModel, Registry
from llm_backend.errors import InvalidRequest

if TYPE_CHECKING:  # its HTTP client is imported only with upstreams
    from llm_backend.backends.images.image_servers import ImageServers

_SERVER_STEP = 8  # pixels: image servers draw blocks of this size

ImageModel = ImageServerModel | LocalModel
"""A model that draws."""


class ImageModels:
    """Models that draw. `servers` None: no image server is configured."""

    def __init__(
        self, servers: "ImageServers | None", local: LocalImages, registry: Registry
    ) -> None:
        self._servers = servers
        self._local = local
        self._registry = registry

    @property
    def has_any(self) -> bool:
        """True if an image server is configured, or a local model draws."""
        return self._servers is not None or bool(self._registry.drawing_models)

    def default(self, operation: Sequence[str], *, has_upstream: bool) -> ImageModel | None:
        """Returns the model of a request that names none: an image server's, or the only local
        one. None if such requests are for an upstream, or if no model draws. Raises
        `InvalidRequest` for several local models without a server or an upstream."""
        if self._servers is not None and self._servers.is_default(operation):
            return ImageServerModel(model=None)
        local = self._registry.drawing_models
        if has_upstream or self._servers is not None or not local:
            return None
        if len(local) == 1:
            return local[0]
        names = ", ".join(f"`{one.card.id}`" for one in local)
        raise InvalidRequest(
            f"Several models draw, {names}: name one.",
            param="model",
            code="missing_required_parameter",
        )

    async def resolve(self, model: ImageModel, operation: Sequence[str]) -> ImageModel:
        """Returns the model with the name that limits and prices refer to: for an image server,
        the id of the checkpoint. Raises the same errors as `ImageServers.resolve`."""
        if isinstance(model, LocalModel):
            return model
        assert self._servers is not None, "the model is an image server's"
        return await self._servers.resolve(model, operation)

    def side_step(self, model: ImageModel) -> int:
        """Returns the number of pixels that width and height must be multiples of."""
        if isinstance(model, LocalModel) and model.image_setup is not None:
            return model.image_setup.file.side_step
        return _SERVER_STEP

    def pixels_limit(self, model: ImageModel, limit: int) -> int:
        """Returns the maximum number of pixels of an image: `limit`, or less for a local model."""
        if isinstance(model, LocalModel) and model.image_setup is not None:
            return min(limit, model.image_setup.pixels_limit)
        return limit

    async def progress(self) -> Sequence[ImageProgress]:
        """Returns the progress of all unanswered image requests of this process."""
        servers = () if self._servers is None else await self._servers.progress()
        return [*servers, *self._local.progress()]

    def draw(
        self,
        drawing: ImageRequest,
        model: ImageModel,
        *,
        operation: Sequence[str],
        fairness_key: str,
        on_abandoned: Callable[[], None],
    ) -> AsyncGenerator[Preview | GeneratedImage, None]:
        """Yields each image once it is finished, after its previews. Closing the generator stops
        the drawing; `on_abandoned` is called if an image server has got the request by then.
        `model` is a result of `resolve`. Raises `ApiError`."""
        if isinstance(model, LocalModel):
            return self._local.draw(drawing, model, fairness_key=fairness_key)
        assert self._servers is not None, "the model is an image server's"
        return self._servers.draw(
            drawing,
            model,
            operation=operation,
            fairness_key=fairness_key,
            on_abandoned=on_abandoned,
        )


def name_of(model: ImageModel) -> str:
    """Returns the name of a model; empty for the one that an image server has loaded."""
    return model.card.id if isinstance(model, LocalModel) else model.model or ""


__all__ = ["ImageModel", "ImageModels", "image_size", "name_of"]
