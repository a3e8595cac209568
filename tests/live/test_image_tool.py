"""The tool `image_generation`: the built-in model calls it, and a fake image server draws."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.gateway import gateway
from tests.image_server import FakeImageServer, decoded
from tests.response_events import check_events
from tests.strict_sdk import StrictAsyncOpenAI

TOOL: Any = {"type": "image_generation", "model": "sd-one", "size": "128x64", "quality": "low"}
ASKED: Any = {
    "model": "builtin",
    "input": "Draw a cat.",
    "tool_choice": "required",
    "temperature": 0,
    "max_output_tokens": 400,
}


@contextlib.asynccontextmanager
async def drawing(folder: Path, server: FakeImageServer) -> AsyncIterator[openai.AsyncOpenAI]:
    settings: Any = {
        "models": ("builtin",),
        "allowed_hosts": ("127.0.0.1",),
        "tool_calls_limit": 1,
        "threads": 1,
        "store_chats": "always",
    }
    async with server, gateway(folder, backends=[server.backend()], **settings) as served:
        base_url = f"http://127.0.0.1:{served.port}/v1"
        async with StrictAsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            yield client


async def test_a_response_draws_images_streamed_stored_and_continued(tmp_path):
    server = FakeImageServer()
    async with drawing(tmp_path, server) as client:
        whole = await client.responses.create(
            **ASKED, tools=[{**TOOL, "output_format": "jpeg", "partial_images": 2}]
        )
        server.is_held = True
        sent_back: Any = [item.to_dict(warnings=False) for item in whole.output]
        asked = {**ASKED, "input": [*sent_back, {"role": "user", "content": "Another one."}]}
        stream = await client.responses.create(
            **asked, tools=[{**TOOL, "partial_images": 1}], stream=True
        )
        events = []
        async for event in stream:
            events.append(event)
            if event.type == "response.image_generation_call.partial_image":
                server.release.set()
        unnamed = {name: value for name, value in TOOL.items() if name != "model"}
        await client.responses.create(**ASKED, tools=[unnamed])
        server.answer, streamed = lambda _: (500, {}), events[-1].response
        failed = await client.responses.create(
            **ASKED, tools=[{**TOOL, "model": "sd-two"}], previous_response_id=streamed.id
        )
        stored = await client.responses.retrieve(streamed.id)
        for name, value in (
            ("background", "transparent"),
            ("size", "1x1"),
            ("action", "edit"),
            ("input_image_mask", {"file_id": "file-1"}),
            ("model", "builtin"),
        ):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(**ASKED, tools=[{**TOOL, name: value}])
            assert caught.value.param == f"tools[0].{name}"
        used = await client.get(
            f"/organization/usage/images?start_time={int(time.time()) - 86_400}&group_by=model",
            cast_to=httpx.Response,
        )

    results = [one for day in used.json()["data"] for one in day["results"]]
    assert {one["model"]: one["images"] for one in results} == {"sd-one": 3}
    call = images(whole)[0]
    image = decoded(call.result)
    assert (call.status, image.format, image.size) == ("completed", "JPEG", (128, 64))
    fields = server.drawings[0][1]
    assert (fields["prompt"], fields["steps"]) == (call.revised_prompt, 10)
    assert whole.output[-1].type == "message"
    check_events([event.to_dict(warnings=False) for event in events])
    kinds = [event.type for event in events if "image_generation" in event.type]
    assert kinds == [
        f"response.image_generation_call.{kind}"
        for kind in ("in_progress", "generating", "partial_image", "completed")
    ]
    assert decoded(images(stored)[0].result).size == (128, 64)
    assert stored.output == streamed.output
    assert images(failed)[0].status == "failed"
    assert failed.status == "completed"


def images(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "image_generation_call"]


async def test_chat_with_the_tool_is_refused_with_the_name_of_the_api_that_has_it(tmp_path):
    async with drawing(tmp_path, FakeImageServer()) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="builtin", messages=[{"role": "user", "content": "Draw!"}], tools=[TOOL]
            )

    assert (refused.value.type, refused.value.param) == ("invalid_request_error", "tools[0].type")
    assert refused.value.code == "invalid_value"
    assert "The Responses API (`POST /v1/responses`) has this tool." in refused.value.message
