"""The tool `image_generation` without an image server."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.access import Ledger, Principal, RequestMeter
from llm_backend.backends.images.image_request import ImageRequest
from llm_backend.backends.registry import ImageServerModel
from llm_backend.controllers.images.drawings import ImageStyle
from llm_backend.controllers.responses.loop.image_tool import ImageGeneration, ImageGenerationKind
from llm_backend.controllers.services.server_tools import ServerCall
from llm_backend.errors import InvalidRequest, ServiceUnavailable


async def test_a_drawing_waits_in_the_line_of_the_callers_key_and_its_failure_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[dict[str, Any]] = []

    async def draw(*_: Any, **how: Any) -> AsyncGenerator[Any, None]:
        asked.append(how)
        raise ServiceUnavailable("Not now.")
        yield

    stored: Any = None  # nothing is written
    caller = Principal(project_id="p", key_id="k", user_id=None)

    async def resolve(model: ImageServerModel, _: object) -> ImageServerModel:
        return model

    servers: Any = SimpleNamespace(draw=draw, resolve=resolve)
    tool = ImageGeneration(
        servers,
        ImageServerModel(model="sd"),
        ImageRequest(prompt=""),
        ImageStyle(),
        image_pixels=1,
        meter=RequestMeter(Ledger(stored), caller, kind="completions"),
    )
    call = ServerCall(name="image_generation", arguments='{"prompt": "a cat"}')

    steps = [step async for step in tool.run(call)]

    assert [how["fairness_key"] for how in asked] == ["k"]
    assert steps[-1].item["status"] == "failed"
    assert [(one.msg, vars(one)["code"]) for one in caplog.records] == [
        ("image_tool_failed", "overloaded")
    ]


async def test_a_drawing_without_an_image_ends_as_failed() -> None:
    async def draw(*_: Any, **__: Any) -> AsyncGenerator[Any, None]:
        for image in ():
            yield image

    async def resolve(model: ImageServerModel, _: object) -> ImageServerModel:
        return model

    servers: Any = SimpleNamespace(draw=draw, resolve=resolve)
    tool = ImageGeneration(
        servers,
        ImageServerModel(model="sd"),
        ImageRequest(prompt=""),
        ImageStyle(),
        image_pixels=1,
        meter=None,
    )

    steps = [step async for step in tool.run(ServerCall(name="image_generation", arguments="{}"))]

    assert steps[-1].item["status"] == "failed"
    assert not any(getattr(step, "kind", "").endswith(".completed") for step in steps)


async def test_a_refusal_of_no_field_names_the_tool() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InvalidRequest("No.")

    image_models: Any = SimpleNamespace(default=refuse)
    registry: Any = SimpleNamespace(has_image_servers=False)
    kind = ImageGenerationKind(image_models, registry, pixels_limit=1, image_pixels=1)
    context: Any = SimpleNamespace(tool={"type": kind.type}, where="tools[0]", body={}, meter=None)

    with pytest.raises(InvalidRequest) as caught:
        async with kind.open(context):
            pass

    assert caught.value.param == "tools[0]"
