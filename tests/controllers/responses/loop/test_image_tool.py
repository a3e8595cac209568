"""The tool `image_generation` without an image server."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.access import Ledger, Principal, RequestMeter
from llm_backend.backends.images.image_request import ImageRequest
from llm_backend.backends.registry import ImageServerModel
from llm_backend.controllers.images.drawings import ImageStyle
from llm_backend.controllers.responses.loop.image_tool import ImageGeneration
from llm_backend.controllers.services.server_tools import ServerCall
from llm_backend.errors import ServiceUnavailable


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

    assert [how["caller"] for how in asked] == ["k"]
    assert steps[-1].item["status"] == "failed"
    assert [(one.msg, vars(one)["code"]) for one in caplog.records] == [
        ("image_tool_failed", "overloaded")
    ]
