"""Server tool `image_generation` of responses: the model calls it, and another model draws.

The image is for the user. The model reads that it was drawn, and does not see it. An item has the
prompt as `revised_prompt`, so that later rounds and responses know what was drawn.
"""

import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import orjson

from llm_backend.backends.base import Meter
from llm_backend.backends.images.image_models import ImageModel, ImageModels, name_of
from llm_backend.backends.images.image_request import ImageRequest, Preview
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import IMAGES, ImageServerModel, Registry
from llm_backend.backends.upstream.upstream_request import ignore
from llm_backend.controllers.generation.supported_fields import refuse_unsupported_fields
from llm_backend.controllers.images.answers import style_preview_or_image
from llm_backend.controllers.images.drawings import ImageStyle, parse_drawing, parse_style
from llm_backend.controllers.response_items.items import new_id
from llm_backend.controllers.services.server_tools import (
    CallBegan,
    CallEnded,
    CallProgress,
    ServerCall,
    ServerTool,
    ToolContext,
    ToolEvent,
    ToolKind,
)
from llm_backend.errors import ApiError, InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import base64_text

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

log = logging.getLogger(__name__)

NAME = "image_generation"
PROMPT_CHARACTERS = 1000  # limit in the grammar: a weak model may never end its prompt
OPERATION = ("createImage", IMAGES)
_FIELDS = frozenset({
    "type", "model", "quality", "size", "output_format", "output_compression", "moderation",
    "background", "partial_images",
})  # fmt: skip
_NEUTRAL = {"action": ("auto", "generate"), "input_fidelity": ("low",)}
_EVENT = "response.image_generation_call"
_DRAWN = "The image was drawn, and the user sees it."
_FAILED = "The image could not be drawn. Say so."
_FUNCTION: JsonObject = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "Draw an image for the user, who sees it at once. Describe it in full.",
        "parameters": {
            "type": "object",
            "properties": {
                "prompt": {"type": "string", "minLength": 1, "maxLength": PROMPT_CHARACTERS}
            },
            "required": ["prompt"],
            "additionalProperties": False,
        },
    },
}


class ImageGenerationKind(ToolKind):
    """Opens the tool for a response. `pixels_limit` bounds the size that a request asks for,
    `image_pixels` that of an image to be decoded."""

    type = "image_generation"
    items = ("image_generation_call",)

    def __init__(
        self, image_models: ImageModels, registry: Registry, *, pixels_limit: int, image_pixels: int
    ) -> None:
        self._image_models = image_models
        self._registry = registry
        self._pixels_limit = pixels_limit
        self._image_pixels = image_pixels

    @asynccontextmanager
    async def open(self, context: ToolContext) -> AsyncIterator[ServerTool]:
        """Opens the tool with the options of its entry. Raises `InvalidRequest`, and
        `UnsupportedField` for an option that no model that draws has."""
        entry, where = cast("api.CreateImageRequest", context.tool), context.where
        streams = bool(context.body.get("stream"))
        try:
            refuse_unsupported_fields(entry, _FIELDS, neutral=_NEUTRAL, by="models that draw")
            model = self._model(entry.get("model"))
            drawing = parse_drawing(
                {**entry, "stream": True},
                pixels_limit=self._image_models.pixels_limit(model, self._pixels_limit),
                side_step=self._image_models.side_step(model),
            )
            style = parse_style(entry)
        except InvalidRequest as error:
            error.param = f"{where}.{error.param}" if error.param else where
            raise
        yield ImageGeneration(
            self._image_models,
            model,
            drawing if streams else replace(drawing, previews=0),
            style,
            image_pixels=self._image_pixels,
            meter=context.meter,
        )

    def _model(self, name: str | None) -> ImageModel:
        if name is None:
            return self._default()
        target = self._registry.targets(name, OPERATION)[0]
        draws = isinstance(target, ImageServerModel) or (
            isinstance(target, LocalModel) and target.image_setup is not None
        )
        if not draws:
            raise UnsupportedField(
                f"`{name}` does not draw, and the image tool needs a model that does.",
                param="model",
            )
        assert isinstance(target, ImageServerModel | LocalModel), "it draws"
        return target

    def _default(self) -> ImageModel:
        if self._registry.has_image_servers:
            return ImageServerModel(model=None)
        model = self._image_models.default(OPERATION, has_upstream=False)
        if model is None:
            raise UnsupportedField(
                "No model of this server draws, which the image tool needs (docs/images.md).",
                param="type",
            )
        return model

    def messages(self, item: JsonMapping) -> Sequence[JsonObject]:
        """Returns the messages of the call and its outcome, without the image."""
        arguments = orjson.dumps({"prompt": item.get("revised_prompt") or ""}).decode()
        function = {"name": NAME, "arguments": arguments}
        call = {"id": item["id"], "type": "function", "function": function}
        is_drawn = item["status"] != "failed"
        content = _DRAWN if is_drawn else _FAILED
        return [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": item["id"], "content": content},
        ]


class ImageGeneration(ServerTool):
    """The tool for one response: each call draws one image."""

    type = "image_generation"
    functions = (_FUNCTION,)

    def __init__(
        self,
        image_models: ImageModels,
        model: ImageModel,
        drawing: ImageRequest,
        style: ImageStyle,
        *,
        image_pixels: int,
        meter: Meter | None,
    ) -> None:
        self._image_models = image_models
        self._model = model
        self._drawing = drawing
        self._style = style
        self._image_pixels = image_pixels
        self._meter = meter

    async def run(self, call: ServerCall) -> AsyncGenerator[ToolEvent, None]:
        """Draws an image; a failure is reported in its item, and the model continues without
        it."""
        item: JsonObject = {
            "id": new_id("image_generation_call"),
            "type": "image_generation_call",
            "status": "in_progress",
            "result": None,
            "revised_prompt": _prompt(call.arguments),
        }
        yield CallBegan(item=item)
        yield CallProgress(kind=f"{_EVENT}.in_progress")
        yield CallProgress(kind=f"{_EVENT}.generating")
        result, status = None, "failed"
        try:
            async with aclosing(self._draw(item["revised_prompt"])) as images:
                async for event in images:
                    if isinstance(event, CallProgress):
                        yield event
                    else:
                        result, status = event, "completed"
        except ApiError as error:
            log.warning("image_tool_failed", extra={"code": error.code})
            result, status = None, "failed"
        if result is not None:
            yield CallProgress(kind=f"{_EVENT}.completed")
        yield CallEnded(item={**item, "status": status, "result": result})

    async def _draw(self, prompt: str) -> AsyncGenerator[CallProgress | str, None]:
        """Yields the events of previews, then the image in base64."""
        model = await self._image_models.resolve(self._model, OPERATION)
        if self._meter is not None:  # a title, or no name, may resolve to a forbidden model
            self._meter.check_model(name_of(model))
        images = self._image_models.draw(
            replace(self._drawing, prompt=prompt),
            model,
            operation=OPERATION,
            fairness_key="" if self._meter is None else self._meter.fairness_key,
            on_abandoned=ignore,
        )
        async with aclosing(images):
            async for one in images:
                image = await style_preview_or_image(one, self._style, limit=self._image_pixels)
                if image is None:
                    continue
                data = await base64_text(image.data)
                if isinstance(one, Preview):
                    fields = {"partial_image_index": one.index, "partial_image_b64": data}
                    yield CallProgress(kind=f"{_EVENT}.partial_image", fields=fields)
                else:
                    if self._meter is not None:
                        self._meter.count_images(name_of(model), 1)
                    yield data


def _prompt(arguments: str) -> str:
    """Parses the prompt of a call; malformed arguments are the prompt as text."""
    try:
        prompt = orjson.loads(arguments)["prompt"]
    except (ValueError, KeyError, TypeError):
        prompt = arguments
    return re.sub(r"\s+", " ", str(prompt)).strip()[:PROMPT_CHARACTERS]
